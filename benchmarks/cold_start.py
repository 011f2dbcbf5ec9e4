"""Time that a model adds to the start of `convoy up` when its engine and latency curve are stored."""

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
    """Starts LeNet-5 alone and with all engines of a net, alternately, after one start of each that stores the latency curves."""
    store = Store(setup.scratch / "engines")
    nets = {name: list(group) for name, group in groupby(contenders(setup, store), lambda engine: engine.net.name)}
    alone: list[float] = []
    together: dict[str, list[float]] = {name: [] for name in nets}
    for engines in nets.values():
        _ready(setup, store, engines)
    for _ in range(TURNS):
        alone.append(_ready(setup, store, ()))
        for name, engines in nets.items():
            together[name].append(_ready(setup, store, engines))
    base = statistics.median(alone)
    return [
        {
            "net": name,
            "engines": len(nets[name]),
            "alone": base,
            "beside": statistics.median(times),
            "each": (statistics.median(times) - base) / len(nets[name]),
        }
        for name, times in together.items()
    ]


def _ready(setup: Setup, store: Store, engines: Sequence[Contender]) -> float:
    """Seconds until the server is ready. Raises RuntimeError if a model does not run in the configured engine."""
    models = [model(setup.lenet5()), *(engine.config() for engine in engines)]
    with serving(setup.scratch, models, engines=str(store.root)) as server:
        answer = httpx.get(f"{server.http}/v1/models").raise_for_status().json()
        served = {entry["name"]: entry for entry in answer["models"]}
        for wanted in engines:
            engine, precision = served[wanted.name]["engine"], served[wanted.name]["precision"]
            if (engine.split()[0], precision) != (wanted.backend.name, wanted.precision):
                raise RuntimeError(f"{wanted.name} runs in {engine} {precision}")
        return server.ready_seconds
