from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from time import monotonic

from loadtest.worker.process import starvation

SPIN_S = 0.4


def spin(core: int, pipe: Connection) -> None:
    """Keeps a core busy and tells how long it had to wait for it."""
    os.sched_setaffinity(0, {core})
    pipe.send("ready")
    pipe.recv()
    before, until = starvation(), monotonic() + SPIN_S
    while monotonic() < until:
        pass
    after = starvation()
    pipe.send((after[0] - before[0], after[1] - before[1]))


def test_two_that_share_a_core_wait_half_of_the_time() -> None:
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
    told = [pipe.recv() for pipe in pipes]
    for child, pipe in zip(children, pipes, strict=True):
        child.join()
        pipe.close()
    assert (
        sum(waited for waited, _ in told) > 0.4 * SPIN_S
    )  # each spins until the same moment, so one waits while one runs
    assert all(ran >= 1 for _, ran in told)
