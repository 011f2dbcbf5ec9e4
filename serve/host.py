"""The host: a deployment that holds one model's engine, called once per batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from convoy.errors import EngineFailed, NotReady
from models.artifact import Artifact
from models.engine import TensorSpec
from serve.config import ModelConfig
from serve.curve import LatencyCurve
from serve.executors import Form, load_engines
from serve.metric_pages import PageWriter
from serve.metrics import Metrics

APP_PREFIX = "host-"
SLOTS_PER_HOST = 2  # one batch runs while the next one travels
TRIES = 2

log = logging.getLogger("convoy.host")


@dataclass(frozen=True)
class HostFacts:
    """What a gateway must know of a host."""

    inputs: dict[Form, TensorSpec]
    curve: LatencyCurve


@ray_serve.deployment(
    name="host",
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_timeout_s=20,
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 0},
)
class Host:
    """Deployment of one model's engine."""

    def __init__(self, model: dict[str, object], threads: int, folder: str) -> None:
        config = ModelConfig.model_validate(model)
        metrics = Metrics(PageWriter(Path(folder) / "metrics"))
        self._engines = load_engines(config, Artifact.load(config.folder), threads, metrics)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def facts(self) -> HostFacts:
        return HostFacts(self._engines.inputs, self._engines.curve)

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._engines.run, form, rows)

    def check_health(self) -> None:
        self._engines.probe()


class HostExecutor:
    """Runs batches on the hosts of a model: one handle call per batch, tried once more if its host dies."""

    def __init__(self, handle: DeploymentHandle[Any], facts: HostFacts, replicas: int) -> None:
        self.slots = SLOTS_PER_HOST * replicas
        self.inputs: Mapping[Form, TensorSpec] = facts.inputs
        self.curve = facts.curve
        self._handle = handle

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        for left in reversed(range(TRIES)):
            try:
                answer: NDArray[np.float32] = await self._handle.run.remote(form, rows)
            except Exception as error:  # noqa: BLE001 whatever Ray raises for a host that died or failed
                log.warning("host call failed, %d tries left: %s", left, type(error).__name__)
                failure = error
            else:
                return answer
        raise EngineFailed(f"the model's host failed: {type(failure).__name__}")

    def close(self) -> None:
        """The host outlives the gateways that use it."""


async def connect_host(model: ModelConfig, patience: float) -> HostExecutor:
    """Waits up to `patience` seconds for the model's host. Raises NotReady."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            handle = ray_serve.get_app_handle(APP_PREFIX + model.name)
            facts: HostFacts = await asyncio.wait_for(handle.facts.remote(), patience)
        except Exception as error:
            if asyncio.get_running_loop().time() > deadline:
                raise NotReady(f"no host of {model.name} answered within {patience:.0f} s") from error
            await asyncio.sleep(0.2)
        else:
            return HostExecutor(handle, facts, model.replicas)
