"""Payloads of requests: images from folders, synthetic images, random tensors; with their true labels where known."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.payloads.folders import read_folder
from loadtest.payloads.item import Item
from loadtest.payloads.synthetic import draw_images
from loadtest.payloads.tensors import draw_tensors
from loadtest.plan import Payload

__all__ = ["Item", "Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """The payloads of one traffic: the items to send in turn, and a description for reports."""

    items: tuple[Item, ...]
    about: str


def prepare(payload: Payload, seed: int) -> Prepared:
    """Reads or generates the items of a payload. Raises ConfigError if there are none."""
    if payload.kind == "folder":
        items, found = read_folder(payload)
        return Prepared(items, f"{len(items)} of {found} images of {payload.folder}")
    if payload.kind == "tensor":
        items = draw_tensors(payload, seed)
        return Prepared(items, f"{len(items)} random {payload.datatype} tensors {list(payload.shape)}")
    items = draw_images(payload, seed)
    spread = f", spread {payload.side_spread:g}" if payload.side_spread else ""
    return Prepared(items, f"{len(items)} synthetic {payload.format} images, median side {payload.side} px{spread}")
