"""Contenders that take turns: medians, ratios within a turn, and CPU time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.load import Load
from benchmarks.turns import LIMIT, RAW, Contender, Drive, Target, in_turns


def load(rps: float) -> Load:
    return Load(rps, 1.0, 2.0, 1, 100)


def drives(rates: Sequence[float]) -> Drive:
    """A load with one rate per turn. Each measurement follows a warm-up, whose result nobody reads."""
    results = iter(load(rate) for rate in rates for _ in ("warm-up", "measurement"))
    return lambda in_flight, seconds: next(results)


def contender(started: list[str], name: str, drive: Drive) -> Contender:
    @contextmanager
    def run() -> Iterator[Sequence[Target]]:
        started.append(name)
        yield [Target(name, os.getpid(), drive)]

    return run


def test_contenders_alternate_and_ratios_are_within_a_turn() -> None:
    started: list[str] = []
    rates = {LIMIT: (1000, 500, 800), RAW: (2000, 2000, 2000), "Convoy": (900, 500, 400)}
    contenders = [contender(started, name, drives(values)) for name, values in rates.items()]
    rows = {row["name"]: row for row in in_turns(contenders, (32,), 1.0, turns=3)}
    assert started == [*rates] * 3
    assert (rows["Convoy"]["rps"], rows["Convoy"]["of_limit"], rows["Convoy"]["of_raw"]) == (500, 0.9, 0.25)
    assert (rows["Convoy"]["connections"], rows["Convoy"]["failed"]) == (32, 3)
    assert rows[LIMIT]["of_limit"] == 1


def test_without_a_limit_there_is_no_ratio() -> None:
    (row,) = in_turns([contender([], "Convoy", drives((10,)))], (1,), 1.0, turns=1)
    assert (row["of_limit"], row["of_raw"]) == (None, None)


def test_cpu_time_is_divided_by_the_requests_of_the_measurement() -> None:
    def burn(in_flight: int, seconds: float) -> Load:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        return load(500)

    (row,) = in_turns([contender([], "Convoy", burn)], (1,), 1.0, turns=1)
    assert row["cpu_us"] >= 0.15 / 100 * 1e6  # of 0.2 s; the kernel counts ticks of 10 ms
