"""What a model adds to the time until `convoy up` is ready, when its engine is in the store and its curve is known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import groupby

import httpx

from benchmarks.precision import Contender, contenders
from benchmarks.sections import Row, Setup, model
from benchmarks.server import serving
from models.engines.store.store import Store

TURNS = 2


def cold_start(setup: Setup) -> list[Row]:
    """LeNet-5 alone, then beside all engines that the store has of a net, in turns; a start before them keeps the curves."""
    store = Store(setup.scratch / "engines")
    nets = {name: list(group) for name, group in groupby(contenders(setup, store), lambda one: one.net.name)}
    alone: list[float] = []
    beside: dict[str, list[float]] = {name: [] for name in nets}
    for found in nets.values():
        _ready(setup, store, found)
    for _ in range(TURNS):
        alone.append(_ready(setup, store, ()))
        for name, found in nets.items():
            beside[name].append(_ready(setup, store, found))
    base = statistics.median(alone)
    return [
        {
            "net": name,
            "engines": len(nets[name]),
            "alone": base,
            "beside": statistics.median(times),
            "each": (statistics.median(times) - base) / len(nets[name]),
        }
        for name, times in beside.items()
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
