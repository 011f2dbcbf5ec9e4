"""Hosts whose engine fails on command: it drops a row of every answer, or allocates all memory."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from ray import serve as ray_serve

from benchmarks.chaos.stage import Stage
from models.engines.engine import Engine
from serve.deployments.applications import applications
from serve.deployments.host import Host

HOST = "ServeReplica:host-"
SPARE_BYTES = 64 * 2**20  # that a host may still take before its memory ends
LEAK_BYTES = 2**20

Way = Literal["short", "leak"]


class Breakable:
    """An engine, and the file that tells it to break."""

    def __init__(self, engine: Engine, told: Path) -> None:
        self.input, self.output = engine.input, engine.output
        self._engine, self._told = engine, told
        self._leaked: list[NDArray[Any]] = []

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        way = self._told.read_text() if self._told.exists() else ""
        while way == "leak":
            self._leaked.append(np.ones(LEAK_BYTES, np.uint8))
        return self._engine.run(batch)[way == "short" :]


class BreakableHost(Host.func_or_class):  # type: ignore[misc, name-defined] # known to Ray alone
    async def __init__(self, model: dict[str, object], threads: int, folder: str, engines: str) -> None:  # type: ignore[misc] # Ray awaits it
        await super().__init__(model, threads, folder, engines)
        warm, told = self._engines._warm, told_to_break(Path(folder), os.getpid())
        broken = {form: Breakable(engine, told) for form, engine in warm.engines.items()}
        self._engines._warm = replace(warm, engines=broken)


def told_to_break(folder: Path, pid: int) -> Path:
    return folder / f"break-{pid}"


def make_breakable(stage: Stage) -> None:
    """The hosts are replaced by such that can break."""
    host: Any = Host  # a class only to the type checker
    deployment = host.options(func_or_class=BreakableHost)
    specs = [replace(one, deployment=deployment) for one in applications(stage.settings) if one.deployment is Host]
    ray_serve.run_many([one.run_target() for one in specs], wait_for_applications_running=True)


def break_one(way: Way, stage: Stage) -> None:
    lost = stage.one(HOST)
    used = int(Path(f"/proc/{lost}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(lost, resource.RLIMIT_AS, (used + SPARE_BYTES, resource.RLIM_INFINITY))
    told_to_break(stage.settings.node_dir, lost).write_text(way)
    stage.until_replaced(HOST, lost)


lose_rows, exhaust_memory = partial(break_one, "short"), partial(break_one, "leak")
