"""What a second of a model's engine costs in joules on this node, as its meter publishes it."""

from __future__ import annotations

from pathlib import Path

import orjson

from serve.experiments.analysis import Prices
from serve.experiments.report import Price

FILE = "prices.json"


def node_prices(folder: Path) -> Prices:
    """The price of a model; None where the meter knows none, since an estimate out of nothing is no figure."""

    def price(model: str) -> Price | None:
        try:
            one = orjson.loads((folder / FILE).read_bytes())["models"][model]
            return Price(float(one["joules_per_second"]), str(one["source"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    return price
