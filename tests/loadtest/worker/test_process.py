"""Measurement of a worker's wait for a core."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from time import monotonic

from loadtest.worker.process import starvation

SPIN_S = 0.4


def spin(core: int, pipe: Connection) -> None:
    """Keeps a core busy; sends how long it waited for the core and how often it was scheduled."""
    os.sched_setaffinity(0, {core})
    pipe.send("ready")
    pipe.recv()
    before, until = starvation(), monotonic() + SPIN_S
    while monotonic() < until:
        pass
    after = starvation()
    pipe.send((after[0] - before[0], after[1] - before[1]))


def test_two_processes_on_one_core_wait_half_of_the_time() -> None:
    context = multiprocessing.get_context("spawn")
    core = min(os.sched_getaffinity(0))
    pipes, children = [], []
    for _ in range(2):
        ours, theirs = context.Pipe()
        child = context.Process(target=spin, args=(core, theirs))
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    results = [pipe.recv() for pipe in pipes]
    for child, pipe in zip(children, pipes, strict=True):
        child.join()
        pipe.close()
    # Both spin until the same time, so one waits while the other runs.
    assert sum(waited for waited, _ in results) > 0.4 * SPIN_S
    assert all(ran >= 1 for _, ran in results)
