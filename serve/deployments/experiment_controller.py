"""The experiment controller (Ray application `referee`): a single replica that decides on experiments.

It is not on the request path, so gateways serve without it. It has its own deployment, because it works on a database and
large arrays and must not delay the coordinator.
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
SPLIT_SECONDS = 10.0  # counting all units takes longer than checking guardrails
PURGE_SECONDS = 3600.0
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
    """The deployment; its methods are those of `serve.experiments.controller.ExperimentController`, run off the event loop."""

    def __init__(self, ledger: dict[str, Any], folder: str) -> None:
        # Imported here: the database libraries are needed, and loaded, only by a server with a ledger.
        from serve.experiments.controller import ExperimentController
        from serve.experiments.ledger.store import Ledger

        self._config = LedgerConfig.model_validate(ledger)
        self._ledger: Ledger = Ledger(self._config.url)
        self._controller: ExperimentController = ExperimentController(
            self._ledger, partial(price_source, Path(folder) / "metrics"), tell_webhook
        )
        self._splits = SrmGauge(Metrics(MmapWriter(Path(folder) / "metrics")))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="experiment-controller", daemon=True)
        self._thread.start()

    async def start(self, definition: str) -> dict[str, Any]:
        """Starts an experiment from its definition in JSON; returns its report."""
        return await asyncio.to_thread(self._start, definition)

    def _start(self, definition: str) -> dict[str, Any]:
        self._controller.start(Experiment.model_validate_json(definition))
        return self._controller.report(Experiment.model_validate_json(definition).name).document()

    async def ramp(self, name: str, percent: float | None) -> None:
        """Moves an experiment to the next step of its ramp, or to `percent`."""
        await asyncio.to_thread(self._controller.ramp, name, percent)

    async def stop(self, name: str, arm: str) -> None:
        """Stops an arm, or the whole experiment if `arm` is empty."""
        await asyncio.to_thread(self._controller.stop, name, arm)

    async def promote(self, name: str, arm: str) -> None:
        """Gives an arm all the traffic."""
        await asyncio.to_thread(self._controller.promote, name, arm)

    async def report(self, name: str) -> dict[str, Any]:
        """The experiment's report, JSON-ready."""
        return (await asyncio.to_thread(self._controller.report, name)).document()

    def check_health(self) -> None:
        if not self._thread.is_alive():
            raise RuntimeError("the experiment controller's thread has ended")

    def __del__(self) -> None:
        self._ending.set()

    def _work(self) -> None:
        """Runs a round each second, or less often when rounds are slow: they take at most a third of the time."""
        pause, last_purge, last_count = TICK_SECONDS, time.monotonic(), -SPLIT_SECONDS
        while not self._ending.wait(pause):
            started = time.monotonic()
            try:
                self._controller.tick()
                if started - last_count > SPLIT_SECONDS:
                    last_count = started
                    self._splits.show(self._controller.splits())
                if started - last_purge > PURGE_SECONDS:
                    last_purge = started
                    self._ledger.forget(time.time() - self._config.retention_days * 86_400)
            except Exception:  # the ledger may be unavailable; the next round tries again
                log.exception("a round of the experiment controller failed")
            pause = max(TICK_SECONDS, 2 * (time.monotonic() - started))


def price_source(folder: Path) -> str:
    """The energy sources of this node's prices, for example `nvml+rapl`; empty without a source."""
    sources = {source for price in read_prices(folder).models.values() for source in price.source.split("+")}
    return "+".join(sorted(sources))


def tell_webhook(definition: Experiment, decision: Decision) -> None:
    """POSTs a decision to the experiment's webhook, on its own thread, with a few retries."""
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
