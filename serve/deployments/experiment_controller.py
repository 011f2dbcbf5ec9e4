"""The referee's deployment: one replica that decides on experiments, never on the request path. Gateways go on without it.

Beside the steward, not in it: it opens a database and works on arrays, and must not hold up a load or an unload.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson
from ray import serve as ray_serve

from serve.config.experiments import Experiment
from serve.config.schema import LedgerConfig
from serve.energy.prices import read_prices
from serve.experiments.ledger.records import Decision
from serve.experiments.srm_gauge import SrmGauge
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics

if TYPE_CHECKING:
    from serve.experiments.controller import ExperimentController
    from serve.experiments.ledger.store import Ledger

TICK_SECONDS = 1.0
SPLIT_SECONDS = 10.0  # counting all units takes longer than a look at guardrails
FORGET_SECONDS = 3600.0
WEBHOOK_SECONDS = 5.0
WEBHOOK_TRIES = 3

log = logging.getLogger("convoy.experiments")


@ray_serve.deployment(
    name="referee",
    num_replicas=1,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=5,
    ray_actor_options={"num_cpus": 0},
)
class ExperimentControllerDeployment:
    """Deployment of the referee."""

    def __init__(self, ledger: dict[str, Any], folder: str) -> None:
        from serve.experiments.controller import ExperimentController
        from serve.experiments.ledger.store import Ledger  # as in the gateway: only where there is a ledger

        self._config = LedgerConfig.model_validate(ledger)
        self._ledger: Ledger = Ledger(self._config.url)
        self._referee: ExperimentController = ExperimentController(
            self._ledger, partial(price_source, Path(folder) / "metrics"), tell_webhook
        )
        self._splits = SrmGauge(Metrics(MmapWriter(Path(folder) / "metrics")))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="referee", daemon=True)
        self._thread.start()

    async def start(self, definition: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._start, definition)

    def _start(self, definition: str) -> dict[str, Any]:
        self._referee.start(Experiment.model_validate_json(definition))
        return self._referee.report(Experiment.model_validate_json(definition).name).document()

    async def ramp(self, name: str, percent: float | None) -> None:
        await asyncio.to_thread(self._referee.ramp, name, percent)

    async def stop(self, name: str, arm: str) -> None:
        await asyncio.to_thread(self._referee.stop, name, arm)

    async def promote(self, name: str, arm: str) -> None:
        await asyncio.to_thread(self._referee.promote, name, arm)

    async def report(self, name: str) -> dict[str, Any]:
        return (await asyncio.to_thread(self._referee.report, name)).document()

    def check_health(self) -> None:
        if not self._thread.is_alive():
            raise RuntimeError("the thread that decides has ended")

    def __del__(self) -> None:
        self._ending.set()

    def _work(self) -> None:
        """A round each second, or less often where a round takes long: at most a third of the time goes to it."""
        pause, forgot, counted = TICK_SECONDS, time.monotonic(), -SPLIT_SECONDS
        while not self._ending.wait(pause):
            began = time.monotonic()
            try:
                self._referee.tick()
                if began - counted > SPLIT_SECONDS:
                    counted = began
                    self._splits.show(self._referee.splits())
                if began - forgot > FORGET_SECONDS:
                    forgot = began
                    self._ledger.forget(time.time() - self._config.retention_days * 86_400)
            except Exception:  # the ledger may be away; the next round tries again
                log.exception("a round over the experiments failed")
            pause = max(TICK_SECONDS, 2 * (time.monotonic() - began))


def price_source(folder: Path) -> str:
    """Where this node's meter reads what its prices rest on, as `nvml+rapl`; empty when it has no source."""
    sources = {source for price in read_prices(folder).models.values() for source in price.source.split("+")}
    return "+".join(sorted(sources))


def tell_webhook(definition: Experiment, decision: Decision) -> None:
    """POSTs a decision, on a thread of its own; a hook that does not answer is given up after some tries."""
    if definition.webhook:
        document = decision._asdict() | {"evidence": orjson.loads(decision.evidence)}
        threading.Thread(target=_post, args=(definition.webhook, document), daemon=True).start()


def _post(url: str, document: dict[str, Any]) -> None:
    for attempt in range(WEBHOOK_TRIES):
        try:
            httpx.post(url, json=document, timeout=WEBHOOK_SECONDS).raise_for_status()
        except httpx.HTTPError as error:
            log.warning("webhook: %s", type(error).__name__)
            time.sleep(2**attempt)
        else:
            return
