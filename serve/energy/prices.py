"""Energy prices, which the node agent publishes to the processes of its node in a file.

A request's energy is its engine time x the model's price, so gateways need no energy source.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import orjson

FILE = "prices.json"


@dataclass(frozen=True)
class Price:
    """Active joules of all chips per engine second of answered requests, and the sources, for example `nvml+rapl`.

    The energy of a model's answered requests adds up to the energy that the model used.
    """

    joules_per_second: float
    source: str


@dataclass(frozen=True)
class Prices:
    """Prices by model, and each chip's idle power, so that a restarted node agent need not estimate it again."""

    models: dict[str, Price] = field(default_factory=dict)
    idle_watts: dict[str, float] = field(default_factory=dict)


def write_prices(folder: Path, prices: Prices) -> None:
    """Replaces the node's prices, atomically for readers."""
    staged = folder / f"{FILE}.{os.getpid()}"
    staged.write_bytes(orjson.dumps(prices))
    staged.replace(folder / FILE)


def read_prices(folder: Path) -> Prices:
    """The node's prices; empty if there are none or they cannot be read."""
    try:
        document = orjson.loads((folder / FILE).read_bytes())
        models = {name: Price(**price) for name, price in document["models"].items()}
        return Prices(models, {chip: float(watts) for chip, watts in document["idle_watts"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Prices()
