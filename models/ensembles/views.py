"""Test-time augmentation: combines the predictions for several crops of one image.

A crop (`Look`) is a square of the upright image, resized to the network's input and then mirrored or shifted, all in UINT8.
Views compose from left to right: `five_crops, flip` are AlexNet's ten crops.

Krizhevsky, Sutskever and Hinton 2012, section 4.1 (ten crops); Szegedy et al. 2014, section 7 (144 crops).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.artifact import Preprocessing
from models.images.geometry import Box, crop_box, resized_size, square_box

View = Literal["identity", "flip", "shift", "five_crops", "ten_crops", "googlenet_144"]
CROPPING: frozenset[View] = frozenset({"five_crops", "ten_crops", "googlenet_144"})

LOOKS = {"identity": 1, "flip": 2, "shift": 5, "five_crops": 5, "ten_crops": 10, "googlenet_144": 144}
SHIFT_SHARE = 16  # a shift is the input's side divided by this
ALEXNET_SHORT = 256 / 224  # times the input's side, for networks whose own preprocessing leaves no margin to crop
GOOGLENET_SHORTS = (256 / 224, 288 / 224, 320 / 224, 352 / 224)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """A crop: `box` in pixels of the upright image, then mirrored, then moved by `shift` (right, down) input pixels."""

    box: Box
    mirrored: bool = False
    shift: tuple[int, int] = (0, 0)


def check_views(views: Sequence[View]) -> None:
    """Raises ValueError for an invalid sequence of views."""
    if not views:
        raise ValueError("views must name at least one view; 'identity' is the plain image")
    if len(set(views)) < len(views):
        raise ValueError(f"a view is named twice in {', '.join(views)}")
    if any(view in CROPPING for view in views[1:]):
        raise ValueError(f"crops are cut from the image itself: name one of {', '.join(sorted(CROPPING))} first")
    if "flip" in views and views[0] in ("ten_crops", "googlenet_144"):
        raise ValueError(f"{views[0]} already holds the mirror images: leave out 'flip'")


def count_looks(views: Sequence[View]) -> int:
    """Number of crops: the rows that a network runs for one image."""
    total = 1
    for view in views:
        total *= LOOKS[view]
    return total


def finest_short(views: Sequence[View], steps: Preprocessing) -> int:
    """The largest short side to which the views resize an image: the resolution that decoding must keep."""
    if "googlenet_144" in views:
        return round(steps.size * GOOGLENET_SHORTS[-1])
    return _crop_short(steps) if set(views) & CROPPING else steps.resize


def looks_at(views: Sequence[View], width: int, height: int, steps: Preprocessing) -> list[Look]:
    """The `count_looks(views)` crops of an upright image of this size."""
    looks = [Look(crop_box(width, height, steps))]
    for view in views:
        if view in ("five_crops", "ten_crops"):
            looks = [Look(box) for box in _five_boxes(width, height, steps)]
        elif view == "googlenet_144":
            looks = [Look(box) for short in GOOGLENET_SHORTS for box in _scale_boxes(width, height, short, steps.size)]
        if view in ("flip", "ten_crops", "googlenet_144"):
            looks += [replace(look, mirrored=True) for look in looks]
        elif view == "shift":
            looks = [replace(look, shift=shift) for shift in _shifts(steps.size) for look in looks]
    return looks


def arrange(pixels: Pixels, look: Look) -> Pixels:
    """Mirrors and shifts a resized crop, UINT8 [size, size, channels]. A shift repeats the edge pixels."""
    if look.mirrored:
        pixels = pixels[:, ::-1]
    right, down = look.shift
    if (right, down) != (0, 0):
        size = len(pixels)
        rows, columns = (np.clip(np.arange(size) - move, 0, size - 1) for move in (down, right))
        pixels = pixels[rows[:, np.newaxis], columns]
    return pixels


def _shifts(size: int) -> list[tuple[int, int]]:
    step = max(1, size // SHIFT_SHARE)
    return [(0, 0), (step, 0), (-step, 0), (0, step), (0, -step)]


def _crop_short(steps: Preprocessing) -> int:
    return steps.resize if steps.resize > steps.size else round(steps.size * ALEXNET_SHORT)


def _five_boxes(width: int, height: int, steps: Preprocessing) -> list[Box]:
    """The centre crop, then the four corner crops of the central square of the resized image."""
    short = _crop_short(steps)
    left, top = (round((side - short) / 2) for side in resized_size(width, height, short))
    return [
        square_box(width, height, short, left + x, top + y, steps.size)
        for x, y in _centre_and_corners(short, steps.size)
    ]


def _scale_boxes(width: int, height: int, scale: float, size: int) -> list[Box]:
    """18 boxes of one scale: six each of the left, middle and right (or top, middle and bottom) square."""
    short = round(size * scale)
    across, down = (side - short for side in resized_size(width, height, short))
    boxes: list[Box] = []
    for share in (0.0, 0.5, 1.0):
        left, top = round(across * share), round(down * share)
        boxes += [
            square_box(width, height, short, left + x, top + y, size) for x, y in _centre_and_corners(short, size)
        ]
        boxes.append(square_box(width, height, short, left, top, short))
    return boxes


def _centre_and_corners(side: int, size: int) -> list[tuple[int, int]]:
    middle = round((side - size) / 2)
    edges = (0, side - size)
    return [(middle, middle), *product(edges, edges)]
