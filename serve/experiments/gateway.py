"""The experiments of a gateway: follows the ledger, puts fronts before the arms' endpoints, takes feedback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from convoy.errors import InvalidInput, Overloaded
from serve.catalog import Endpoint, Endpoints
from serve.config import LedgerConfig
from serve.dataplane import DataPlane
from serve.experiments.definition import Experiment
from serve.experiments.feedback import parse_feedback
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter
from serve.experiments.live import LiveExperiment
from serve.experiments.revision import Revision
from serve.metrics import LEDGER_EVENTS, Metrics, ModelRecorder

FOLLOW_SECONDS = 0.4  # so that a decision is followed within a second

log = logging.getLogger("convoy.experiments")


class Experiments:
    """Lives on the gateway's event loop. `changing` is held while the table of endpoints is replaced."""

    def __init__(
        self, plane: DataPlane, metrics: Metrics, ledger: Ledger, config: LedgerConfig, changing: asyncio.Lock
    ) -> None:
        self._plane = plane
        self._metrics = metrics
        self._ledger = ledger
        self._written = metrics.values(LEDGER_EVENTS, outcome="written")
        self._dropped = metrics.values(LEDGER_EVENTS, outcome="dropped")
        self._writer = LedgerWriter(ledger, config.flush_seconds, config.events, self._count)
        self._changing = changing
        self._declared: set[str] = set()
        self._revisions: dict[str, Revision] = {}
        self._recorders: dict[str, ModelRecorder] = {}
        self._follower = asyncio.create_task(self._follow())

    async def declare(self, definitions: Iterable[Experiment], endpoints: Endpoints) -> Endpoints:
        """The endpoints with a front for every experiment: those that configuration declares, and those of commands."""
        declared = list(definitions)
        for definition in declared:
            await asyncio.to_thread(self._ledger.declare, definition)
        self._declared = {definition.name for definition in declared}
        self._revisions = await asyncio.to_thread(self._ledger.current)
        return self._bind(endpoints)

    def states(self) -> dict[str, Revision]:
        return {
            name: live.revision for name, live in self._plane.experiments.items() if isinstance(live, LiveExperiment)
        }

    def check(self, definition: Experiment) -> None:
        """Raises InvalidInput when the arms are not served here or cannot be compared."""
        if definition.name in self._plane.endpoints.by_name:
            raise InvalidInput(f"{definition.name!r} is a model; give the experiment a name of its own")
        try:
            self._arms(definition, self._plane.endpoints)
        except KeyError as error:
            raise InvalidInput(f"an arm's model is not served here: {error.args[0]}") from error
        if definition.webhook:
            raise InvalidInput("a webhook can only be declared in the configuration file")

    def feedback(self, document: Any) -> int:
        """Takes outcomes; how many. Raises InvalidInput, or Overloaded when the ledger has been away for too long."""
        outcomes = parse_feedback(document, self._class_index)
        if self._writer.room < len(outcomes):
            raise Overloaded("the ledger is away and its memory is full; send the feedback again later", 5.0)
        for outcome in outcomes:
            self._writer.outcome(outcome)
        return len(outcomes)

    async def close(self) -> None:
        self._follower.cancel()
        await asyncio.to_thread(self._writer.close)
        self._ledger.close()

    def _bind(self, endpoints: Endpoints) -> Endpoints:
        fronts, live = [], {}
        for name, revision in self._revisions.items():
            if name not in self._declared and not revision.by_command:
                continue
            try:
                arms = self._arms(revision.definition, endpoints)
            except (KeyError, InvalidInput) as error:
                log.error("experiment %s is not served: %s", name, error)
                continue
            control = arms[revision.definition.control.name]
            live[name] = LiveExperiment(revision, arms, self._writer, self._metrics)
            fronts.append(replace(control, name=name, recorder=self._recorder(name), experiment=name))
        self._plane.experiments = live
        return endpoints.with_fronts(fronts)

    def _arms(self, definition: Experiment, endpoints: Endpoints) -> dict[str, Endpoint]:
        arms = {arm.name: endpoints.by_name[arm.model] for arm in definition.arms}
        labels = {arm.manifest.labels for arm in arms.values()}
        if len(labels) > 1:
            raise InvalidInput(f"arms of {definition.name} have different labels and cannot be compared")
        for arm in definition.arms:
            if arm.version and arm.version != arms[arm.name].version:
                served = arms[arm.name].version
                raise InvalidInput(f"{arm.model} has no version {arm.version}; the version here is {served}")
        return arms

    def _recorder(self, name: str) -> ModelRecorder:
        if name not in self._recorders:
            self._recorders[name] = ModelRecorder(self._metrics, name, "1")
        return self._recorders[name]

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                serials = await asyncio.to_thread(self._ledger.serials)
                if serials == {name: one.serial for name, one in self._revisions.items()}:
                    continue
                revisions = await asyncio.to_thread(self._ledger.current)
            except SQLAlchemyError as error:
                log.warning("the ledger is away, the present experiments stay: %s", type(error).__name__)
                continue
            async with self._changing:
                for name, revision in revisions.items():  # read before the lock: some may be newer here by now
                    if name not in self._revisions or revision.serial > self._revisions[name].serial:
                        self._revisions[name] = revision
                self._plane.replace(self._bind(Endpoints(self._plane.endpoints.by_name.values())))

    def _class_index(self, label: str, experiment: str) -> int:
        """The index of a label; without the experiment's name only where all experiments agree on it."""
        fronts: Sequence[Endpoint] = list(self._plane.endpoints.fronts.values())
        tables = [front.manifest.labels for front in fronts if not experiment or front.name == experiment]
        found = {table.index(label) for table in tables if label in table}
        if len(found) == 1:
            return found.pop()
        if found:
            raise InvalidInput(f"label {label[:60]!r} means different classes; say which experiment it is for")
        raise InvalidInput(f"no experiment here has a class {label[:60]!r}")

    def _count(self, written: int, dropped: int) -> None:
        self._written[0] += written
        self._dropped[0] += dropped
