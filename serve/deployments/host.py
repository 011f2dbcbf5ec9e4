"""The host: a deployment that holds one model's engine, called once per batch."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve as ray_serve

from convoy.errors import ArtifactError, NotReady, reason_of
from models.artifact import Artifact
from models.engines.store.store import open_store
from serve.config.schema import ModelConfig
from serve.deployments.autoscaling import BACKLOG, BUSY
from serve.deployments.host_load import HostLoad
from serve.executors.base import Form
from serve.executors.credits import Callers
from serve.executors.engine_selection import build_spec
from serve.executors.engine_set import load_engines
from serve.executors.host import HostAnswer, HostFacts
from serve.telemetry.definitions import HOST_CALLS
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics
from serve.worker_threads import WorkThreads

log = logging.getLogger("convoy.host")


@ray_serve.deployment(
    name="host",
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_timeout_s=20,
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 0},
)
class Host:
    """The Ray Serve deployment of a model's engine."""

    async def __init__(self, model: dict[str, object], threads: int, folder: str, engines: str) -> None:  # type: ignore[misc] # Ray awaits it
        config = ModelConfig.model_validate(model)
        metrics = Metrics(MmapWriter(Path(folder) / "metrics"))
        try:
            artifact = await asyncio.to_thread(Artifact.load, config.folder)
            spec = await asyncio.to_thread(build_spec, config, artifact)
            self._engines = await asyncio.to_thread(load_engines, config, spec, open_store(engines), threads, metrics)
        except Exception as error:
            # Serve's status has only the traceback, in which `serve.cluster.rpc` finds ConvoyErrors.
            raise ArtifactError(reason_of(error)) from error
        self._engines.complete()
        self._thread = WorkThreads("engine")
        self._node = socket.gethostname()
        self._calls = metrics.values(HOST_CALLS, model=config.name, version=config.version)
        self._callers = Callers()
        self._load = HostLoad()

    async def facts(self) -> HostFacts:
        """The facts that a gateway needs to batch for this host."""
        return HostFacts(self._engines.inputs, self._engines.classes, self._engines.curve, self._engines.facts)

    async def run(self, form: Form, rows: NDArray[Any], caller: str, backlog: float = 0.0) -> HostAnswer:
        """Runs a batch of the gateway `caller`. `backlog`: seconds of work in that gateway's queue. Raises EngineFailed."""
        self._calls[0] += 1
        callers = self._callers.called(caller, time.monotonic())
        self._load.called(caller, backlog)
        logits = await self._thread.run(self._run, form, rows)
        return HostAnswer(logits, self._node, os.getpid(), callers, self._engines.facts)

    def _run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        started = time.monotonic()
        try:
            return self._engines.run(form, rows)
        except NotReady:
            # A host that fails immediately has the shortest queue, so Ray's router would send it more and more batches. A dead
            # host gets none and is replaced.
            log.critical("this host exits, since its engine has failed")
            os._exit(1)
        finally:
            self._load.ran(time.monotonic() - started)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray Serve where hosts are autoscaled; see `serve.deployments.autoscaling`."""
        return {BUSY: self._load.busy(), BACKLOG: self._load.backlog()}

    def check_health(self) -> None:
        self._engines.probe()

    async def __del__(self) -> None:
        self._engines.close()
