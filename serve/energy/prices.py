"""Prices that the meter publishes for the processes of its node: what a second of engine time costs a request, by model."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import orjson

FILE = "prices.json"


@dataclass(frozen=True)
class Price:
    """Active joules, of all chips together, per engine second of answered requests, and where they were read.

    Priced so, a model's requests together pay what the model used.
    """

    joules_per_second: float
    source: str


@dataclass(frozen=True)
class Prices:
    """Prices by model, and each chip's watts at rest, so that a new meter need not learn them again."""

    models: dict[str, Price] = field(default_factory=dict)
    idle_watts: dict[str, float] = field(default_factory=dict)


def write_prices(folder: Path, prices: Prices) -> None:
    """Replaces the node's prices; a reader sees the old ones or the new ones."""
    staged = folder / f"{FILE}.{os.getpid()}"
    staged.write_bytes(orjson.dumps(prices))
    staged.replace(folder / FILE)


def read_prices(folder: Path) -> Prices:
    """The node's prices; empty ones where there are none or they cannot be read."""
    try:
        document = orjson.loads((folder / FILE).read_bytes())
        models = {name: Price(**one) for name, one in document["models"].items()}
        return Prices(models, {chip: float(watts) for chip, watts in document["idle_watts"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Prices()
