"""What a model adds to the time until `convoy up` is ready, when its engine is in the store and its curve is known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import httpx

from benchmarks.precision import Contender, contenders
from benchmarks.sections import Row, Setup, model
from benchmarks.server import serving
from models.engines.store import Store

TURNS = 3


def cold_start(setup: Setup) -> list[Row]:
    """LeNet-5 alone, then beside every engine that the store has of five nets, in turns; one start before keeps the curves."""
    store = Store(setup.scratch / "engines")
    found = list(contenders(setup, store))
    _ready(setup, store, found)
    turns = [(_ready(setup, store, ()), _ready(setup, store, found)) for _ in range(TURNS)]
    return [
        {
            "models": len(found),
            "alone": statistics.median(alone for alone, _ in turns),
            "all": statistics.median(whole for _, whole in turns),
            "per_model": statistics.median((whole - alone) / len(found) for alone, whole in turns),
        }
    ]


def _ready(setup: Setup, store: Store, found: Sequence[Contender]) -> float:
    """Seconds to ready. Raises RuntimeError where another engine runs than the one that is asked for."""
    models = [model(setup.lenet5()), *(one.config() for one in found)]
    with serving(setup.scratch, models, engines=str(store.root)) as server:
        served = {one["name"]: one for one in httpx.get(f"{server.http}/v1/models").raise_for_status().json()["models"]}
        for one in found:
            told = served[one.name]
            if (told["engine"].split()[0], told["precision"]) != (one.backend.name, one.precision):
                raise RuntimeError(f"{one.name} runs in {told['engine']} {told['precision']}")
        return server.ready_seconds
