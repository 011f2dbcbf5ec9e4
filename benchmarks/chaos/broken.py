"""Hosts whose engine fails on command: it drops a row of every answer, or leaks memory up to its limit."""

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
SPARE_BYTES = 64 * 2**20  # that a leaking host may still allocate
LEAK_BYTES = 2**20

Failure = Literal["short", "leak"]


class Breakable:
    """An engine that fails as the content of a file commands."""

    def __init__(self, engine: Engine, command: Path) -> None:
        self.input, self.output = engine.input, engine.output
        self._engine, self._command = engine, command
        self._leaked: list[NDArray[Any]] = []

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        failure = self._command.read_text() if self._command.exists() else ""
        while failure == "leak":
            self._leaked.append(np.ones(LEAK_BYTES, np.uint8))
        return self._engine.run(batch)[failure == "short" :]


class BreakableHost(Host.func_or_class):  # type: ignore[misc, name-defined] # a class only at run time
    async def __init__(self, model: dict[str, object], threads: int, folder: str, engines: str) -> None:  # type: ignore[misc] # Ray awaits it
        await super().__init__(model, threads, folder, engines)
        warm, command = self._engines._warm, command_file(Path(folder), os.getpid())
        broken = {form: Breakable(engine, command) for form, engine in warm.engines.items()}
        self._engines._warm = replace(warm, engines=broken)


def command_file(folder: Path, pid: int) -> Path:
    """The file that commands the engine of a host process to fail."""
    return folder / f"break-{pid}"


def make_breakable(stage: Stage) -> None:
    """Replaces the hosts by `BreakableHost`s."""
    host: Any = Host  # a class only to the type checker
    deployment = host.options(func_or_class=BreakableHost)
    specs = [replace(spec, deployment=deployment) for spec in applications(stage.settings) if spec.deployment is Host]
    ray_serve.run_many([spec.run_target() for spec in specs], wait_for_applications_running=True)


def break_host(failure: Failure, stage: Stage) -> None:
    """Makes one host fail, and waits until it is replaced."""
    lost = stage.pid(HOST)
    used = int(Path(f"/proc/{lost}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(lost, resource.RLIMIT_AS, (used + SPARE_BYTES, resource.RLIM_INFINITY))
    command_file(stage.settings.node_dir, lost).write_text(failure)
    stage.until_replaced(HOST, lost)


lose_rows, exhaust_memory = partial(break_host, "short"), partial(break_host, "leak")
