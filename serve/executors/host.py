"""Runs batches on a model's hosts over Ray, and retries a batch at another host when its host dies."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve as ray_serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from convoy.errors import ConvoyError, EngineFailed, NotReady
from models.engines.engine import TensorSpec
from serve.batching.latency_curve import LatencyCurve
from serve.batching.slots import Slots
from serve.cluster.rpc import start_problem
from serve.config.schema import ModelConfig
from serve.executors.base import EngineFacts, Form
from serve.executors.credits import Credits

APP_PREFIX = "host-"
PATIENCE_SECONDS = 60.0  # how long a batch is retried; the deadlines of its requests usually end it sooner
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
HANG_SECONDS = 5.0  # a call that takes longer than this and than HANG_RUNS predicted runs is retried at another host
HANG_RUNS = 20
FACTS_SECONDS = 5.0  # timeout of one attempt to reach a host when a gateway connects

log = logging.getLogger("convoy.host")


@dataclass(frozen=True)
class HostFacts:
    """The properties of a model's hosts that a gateway needs."""

    inputs: dict[Form, TensorSpec]
    classes: int
    curve: LatencyCurve
    engine: EngineFacts


@dataclass(frozen=True)
class HostAnswer:
    """Logits [n, classes] of a batch, the host (node and process), how many gateways share it, and the engine that ran."""

    logits: NDArray[np.float32]
    node: str
    pid: int
    callers: int
    engine: EngineFacts


class HostExecutor:
    """Runs batches on the hosts of a model: one handle call per batch, retried when its host dies."""

    measured = True
    loaded = False
    memory = None
    trouble = ""  # Ray Serve asks the hosts for their health and replaces those that fail

    def __init__(self, handle: DeploymentHandle[Any], facts: HostFacts, replicas: int) -> None:
        self._credits = Credits(replicas)
        self.slots = Slots(self._credits.count, self._credits.eager)
        self.inputs: Mapping[Form, TensorSpec] = facts.inputs
        self._classes = facts.classes
        self.curve = facts.curve
        self.facts = facts.engine
        self.on_measured: list[Callable[[LatencyCurve], None]] = []
        self._handle = handle
        self._fetching: asyncio.Task[None] | None = None
        self._id = secrets.token_hex(8)

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [n, classes]. Inference has no side effects, so that a retried batch may run twice.

        Raises the engine's error, or NotReady if no host answers.
        """
        answer = await self._ask(form, rows)
        self._credits.responded((answer.node, answer.pid), answer.callers, time.monotonic())
        self.slots.resize(self._credits.count, self._credits.eager)
        if answer.engine != self.facts:
            self._follow(answer.engine)
        return answer.logits

    def _follow(self, engine: EngineFacts) -> None:
        """Fetches the new curve in the background, after a host has switched its engine."""
        changed = engine.label != self.facts.label
        self.facts = engine
        if changed and self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_curve())

    async def _fetch_curve(self) -> None:
        try:
            facts: HostFacts = await self._handle.facts.remote()
            self.curve = facts.curve
            for listener in self.on_measured:
                listener(facts.curve)
        except (RayError, RayServeException) as error:
            log.warning("the new latency curve of a host could not be fetched: %s", type(error).__name__)
        finally:
            self._fetching = None

    async def _ask(self, form: Form, rows: NDArray[Any]) -> HostAnswer:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        pause, hang = FIRST_PAUSE_SECONDS, max(HANG_SECONDS, HANG_RUNS * self.curve.predict(len(rows)))
        while True:
            try:
                call = self._handle.run.remote(form, rows, self._id, self._backlog(len(rows)))
                return self._checked(await asyncio.wait_for(call, hang), len(rows))
            except TimeoutError as error:
                lost: Exception = error
                hang *= 2  # a slow machine must not get the same work repeatedly
            except ConvoyError as error:  # Ray raises a class derived from both this and RayTaskError
                if not isinstance(error, NotReady):
                    raise
                lost = error
            except RayTaskError as error:
                raise EngineFailed("the model's host could not run the batch") from error
            except Exception as error:  # noqa: BLE001 Ray raises many types for a lost host
                lost = error
            log.warning("a batch is retried at another host: %s", type(lost).__name__)
            if time.monotonic() + pause > give_up_at:
                raise NotReady(f"no host of the model answered for {PATIENCE_SECONDS:.0f} s; retry") from lost
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _checked(self, answer: HostAnswer, size: int) -> HostAnswer:
        """Raises NotReady for a response of the wrong shape: the host has another version of the model, or is broken."""
        if answer.logits.shape != (size, self._classes):
            raise NotReady(f"a host answered {list(answer.logits.shape)} for {size} rows of {self._classes} classes")
        return answer

    def _backlog(self, size: int) -> float:
        """Seconds of queued work, at the predicted speed of this batch; hosts are scaled by it."""
        return self.slots.waiting * self.curve.predict(size) / size

    async def probe(self) -> None:
        """Does nothing: the deployment of the host probes its own engine."""

    def close(self) -> None:
        """Stops background work. The hosts continue: they are separate deployments."""
        if self._fetching is not None:
            self._fetching.cancel()


async def connect_host(model: ModelConfig, patience: float) -> HostExecutor:
    """Waits up to `patience` seconds for the model's host. Raises NotReady, at once if the host could not start."""
    app = APP_PREFIX + model.name
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            handle = ray_serve.get_app_handle(app)
            facts: HostFacts = await asyncio.wait_for(handle.facts.remote(), FACTS_SECONDS)
        except Exception as error:
            if problem := await asyncio.to_thread(start_problem, app):
                raise NotReady(f"its host cannot start: {problem}") from error
            if asyncio.get_running_loop().time() > deadline:
                raise NotReady(f"no host of {model.name} answered within {patience:.0f} s") from error
            await asyncio.sleep(LONGEST_PAUSE_SECONDS)
        else:
            return HostExecutor(handle, facts, model.replicas)
