"""The experiments of a gateway: follows the ledger, builds the experiments' endpoints, takes feedback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator

from sqlalchemy.exc import SQLAlchemyError

from convoy.errors import InvalidInput, Overloaded, reason_of
from serve.config.experiments import VERSION, Experiment
from serve.config.schema import LedgerConfig
from serve.energy.prices import Prices, read_prices
from serve.experiments.arms import arms_of
from serve.experiments.endpoint import ExperimentEndpoint, experiment_endpoint, with_own_queue
from serve.experiments.feedback import named_experiments, parse_feedback
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter
from serve.experiments.revision import Revision
from serve.experiments.runtime import ExperimentRuntime
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint, Endpoints
from serve.telemetry.definitions import LEDGER_EVENTS
from serve.telemetry.recorder import Metrics, ModelRecorder

FOLLOW_SECONDS = 0.4  # so that a decision takes effect within a second

log = logging.getLogger("convoy.experiments")


class Experiments:
    """All experiments of a gateway. Used on its event loop only."""

    def __init__(self, plane: DataPlane, metrics: Metrics, ledger: Ledger, config: LedgerConfig) -> None:
        self._plane = plane
        self._metrics = metrics
        self._ledger = ledger
        self._written = metrics.values(LEDGER_EVENTS, outcome="written")
        self._dropped = metrics.values(LEDGER_EVENTS, outcome="dropped")
        self._writer = LedgerWriter(ledger, config.flush_seconds, config.events, self._count)
        self.problems: dict[str, str] = {}  # reasons why experiments do not serve, by name
        self._declared: dict[str, Experiment] = {}
        self._revisions: dict[str, Revision] = {}
        self._served: dict[str, ExperimentEndpoint] = {}  # as `bind` made them
        self._recorders: dict[str, ModelRecorder] = {}
        self._prices = Prices()
        self._closing = asyncio.Event()
        self._follower = asyncio.create_task(self._follow())

    @property
    def definitions(self) -> list[Experiment]:
        """Every wanted experiment: those of the configuration, and those started by command."""
        commanded = {name: revision.definition for name, revision in self._revisions.items() if revision.by_command}
        current = {name: self._revisions[name].definition for name in self._declared if name in self._revisions}
        return list((commanded | self._declared | current).values())

    async def declare(self, definitions: Iterable[Experiment]) -> None:
        """Stores the experiments of the configuration; `bind` then serves them.

        Does not raise when the ledger is unreachable: models serve without it, and the known experiments continue.
        """
        declared = {definition.name: definition for definition in definitions}
        try:
            for definition in declared.values():
                await asyncio.to_thread(self._ledger.declare, definition)
            self._take(await asyncio.to_thread(self._ledger.current))
        except SQLAlchemyError as error:
            log.warning("the ledger is away, declared experiments wait for it: %s", type(error).__name__)
        except Exception:  # a bad row must not stop the models
            log.exception("the ledger could not be read, the known experiments continue")
        self._declared = declared

    def bind(self, endpoints: Endpoints) -> Endpoints:
        """The endpoints, with an endpoint for each experiment whose arms all serve; `problems` explains the others."""
        served = {endpoint.name: endpoint for endpoint in with_own_queue(endpoints.by_name.values())}
        before, self.problems = self.problems, {}
        experiments = list(self._bound(served))
        for name, problem in self.problems.items():
            if before.get(name) != problem:
                log.warning("experiment %s is not served: %s", name, problem)
        self._served = {endpoint.name: endpoint for endpoint in experiments}
        return Endpoints([*served.values(), *experiments])

    def states(self) -> dict[str, Revision]:
        """The revision of each experiment that is served here."""
        return {name: endpoint.live.revision for name, endpoint in self._served.items()}

    def labels(self, name: str) -> tuple[str, ...]:
        """The classes of an experiment that is served here."""
        endpoint = self._served.get(name)
        return () if endpoint is None else endpoint.labels

    def check(self, definition: Experiment) -> None:
        """Raises InvalidInput when the arms are not served here or cannot be compared."""
        endpoints = with_own_queue(self._plane.endpoints.by_name.values())
        arms_of(definition, {endpoint.name: endpoint for endpoint in endpoints})
        if definition.webhook:
            raise InvalidInput("a webhook can only be declared in the configuration file")

    def feedback(self, document: object, check: Callable[[str], None]) -> int:
        """Buffers outcomes and returns their number. Raises InvalidInput, or Overloaded when the ledger's buffer is full.

        `check` raises for an experiment that the sender's key may not use. It gets "" for an item without an experiment.
        """
        outcomes = parse_feedback(document, self._class_index)
        for experiment in named_experiments(document):
            check(experiment)
        if self._writer.room < len(outcomes):
            raise Overloaded("the ledger is away and its memory is full; send the feedback again later", 5.0)
        for outcome in outcomes:
            self._writer.outcome(outcome)
        return len(outcomes)

    async def close(self) -> None:
        """Writes the buffered rows and closes the ledger."""
        self._closing.set()
        await self._follower  # a running query must end before its database is closed
        await asyncio.to_thread(self._writer.close)
        self._ledger.close()

    def _bound(self, served: dict[str, Endpoint]) -> Iterator[ExperimentEndpoint]:
        for definition in self.definitions:
            name = definition.name
            revision = self._revisions.get(name)
            if revision is None:
                self.problems[name] = "the ledger that it is recorded in is away"
                continue
            try:
                arms = arms_of(definition, served)
                live = ExperimentRuntime(revision, arms, self._writer, self._metrics, lambda: self._prices)
                yield experiment_endpoint(live, self._recorder(name))
            except Exception as error:  # noqa: BLE001 the others can still serve
                self.problems[name] = reason_of(error)

    def _recorder(self, name: str) -> ModelRecorder:
        if name not in self._recorders:
            self._recorders[name] = ModelRecorder(self._metrics, name, VERSION)
        return self._recorders[name]

    async def _follow(self) -> None:
        while await self._pause():
            try:
                await self._refresh()
            except SQLAlchemyError as error:
                log.warning("the ledger is away, the known experiments continue: %s", type(error).__name__)
            except Exception:  # a bad row must not stop the task, which must follow the next decision
                log.exception("the ledger could not be followed, the known experiments continue")

    async def _pause(self) -> bool:
        """Waits until the next refresh. False when the gateway closes."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), FOLLOW_SECONDS)
        return not self._closing.is_set()

    async def _refresh(self) -> None:
        self._prices = await asyncio.to_thread(read_prices, self._metrics.folder)
        serials = await asyncio.to_thread(self._ledger.serials)
        if serials != {name: revision.serial for name, revision in self._revisions.items()}:
            self._take(await asyncio.to_thread(self._ledger.current))
            self._plane.replace(self.bind(self._plane.endpoints))

    def _take(self, revisions: dict[str, Revision]) -> None:
        """Keeps newer revisions only: concurrent reads may finish in any order."""
        for name, revision in revisions.items():
            if name not in self._revisions or revision.serial > self._revisions[name].serial:
                self._revisions[name] = revision

    def _class_index(self, label: str, experiment: str) -> int:
        """The class index of a label. Without an experiment's name all experiments must agree on it. Raises InvalidInput."""
        tables = [
            endpoint.labels for endpoint in self._served.values() if not experiment or endpoint.name == experiment
        ]
        indices = {table.index(label) for table in tables if label in table}
        if len(indices) == 1:
            return indices.pop()
        if indices:
            raise InvalidInput(f"label {label[:60]!r} means different classes; say which experiment it is for")
        raise InvalidInput(f"no experiment here has a class {label[:60]!r}")

    def _count(self, written: int, dropped: int) -> None:
        self._written[0] += written
        self._dropped[0] += dropped
