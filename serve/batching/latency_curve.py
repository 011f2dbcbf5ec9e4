"""The latency curve of an engine: seconds of a batch by its size, measured at warm-up."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.errors import EngineFailed
from models.engines.engine import Engine
from models.engines.logits import all_have_distribution

LEAST_SECONDS = 0.01  # of runs at one size: on a busy machine a few short runs in sequence may all be delayed
LONG_SECONDS = 0.1  # of runs at one size: enough for an estimate, and short, since the start of a gateway waits for it


@dataclass(frozen=True)
class LatencyCurve:
    """Batch sizes in ascending order, the seconds of each, and the engine that was measured."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    engine: str = ""

    def predict(self, size: int) -> float:
        """Seconds of a batch of `size` rows: interpolated, and proportional beyond the last point."""
        sizes, seconds = self.sizes, self.seconds
        at = bisect_left(sizes, size)
        if at == len(sizes):
            return seconds[-1] * size / sizes[-1]
        if sizes[at] == size or at == 0:
            return seconds[at]
        share = (size - sizes[at - 1]) / (sizes[at] - sizes[at - 1])
        return seconds[at - 1] + share * (seconds[at] - seconds[at - 1])

    def limit(self, target_seconds: float) -> int:
        """The largest measured batch within the target; the smallest one when there is none."""
        fitting = [size for size, seconds in zip(self.sizes, self.seconds, strict=True) if seconds <= target_seconds]
        return max(fitting, default=self.sizes[0])


def in_milliseconds(curve: LatencyCurve | None) -> dict[str, float]:
    """Milliseconds by batch size as a JSON-ready document; empty without a curve."""
    points = zip(curve.sizes, curve.seconds, strict=True) if curve else ()
    return {str(size): round(seconds * 1000, 3) for size, seconds in points}


def bucket_sizes(max_batch: int) -> tuple[int, ...]:
    """1, 2, 4, … and `max_batch`."""
    sizes = [1]
    while sizes[-1] * 2 < max_batch:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes) if max_batch == 1 else (*sizes, max_batch)


def measure_curve(
    engine: Engine, sizes: Sequence[int], repeats: int = 3, clock: Callable[[], float] = time.perf_counter
) -> LatencyCurve:
    """Warms the engine up at every size, and keeps the best of `repeats` runs of each.

    Short runs are repeated for LEAST_SECONDS, long ones only until they have taken LONG_SECONDS.

    It is the best because other processes only make runs slower. Raises EngineFailed for an engine that cannot run blank
    rows, or answers them with NaN or infinity.
    """
    return LatencyCurve(tuple(sizes), tuple(_best_of(engine, size, repeats, clock) for size in sizes))


def warm_up(engine: Engine, sizes: Sequence[int]) -> None:
    """Runs the engine once at every size, since the first run of a size is slow. Raises as `measure_curve` does."""
    for size in sizes:
        _run_blank(engine, _blank(engine, size))


def check_width(engine: Engine, classes: int) -> None:
    """Raises EngineFailed if the engine's logits for a blank row are not one per label."""
    width = engine.run(_blank(engine, 1)).shape[-1]
    if width != classes:
        raise EngineFailed(
            f"the graph answers {width} logits, its manifest has {classes} labels; import the model again with one label for each"
        )


def _best_of(engine: Engine, size: int, repeats: int, clock: Callable[[], float]) -> float:
    batch = _blank(engine, size)
    _run_blank(engine, batch)
    best, spent, runs = float("inf"), 0.0, 0
    while (runs < repeats or spent < LEAST_SECONDS) and spent < LONG_SECONDS:
        start = clock()
        engine.run(batch)
        took = clock() - start
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best


def _run_blank(engine: Engine, batch: NDArray[np.generic]) -> None:
    if not all_have_distribution(engine.run(batch)):
        raise EngineFailed("the engine answers blank rows with NaN or infinity; import or compile the model again")


def _blank(engine: Engine, size: int) -> NDArray[np.generic]:
    return np.zeros((size, *engine.input.shape[1:]), engine.input.dtype)
