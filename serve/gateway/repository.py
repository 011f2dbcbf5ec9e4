"""The models of the catalog and which of them serve: the Open Inference Protocol's model repository."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from convoy.errors import ArtifactError, ConvoyError, EngineFailed, InvalidInput, NotFound, NotReady, reason_of
from convoy.wire.oip_metadata import RepositoryEntry
from serve.config.base import TENSOR_SUFFIX
from serve.config.experiments import VERSION, Experiment
from serve.config.schema import Catalog
from serve.ensembles.factory import compositions_of
from serve.executors.base import Executor
from serve.gateway.availability import Absence, Composition, absences, failed, loading, unloaded
from serve.gateway.catalog_loader import CatalogLoader, close_endpoints
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import ComposedEndpoint, Endpoint, Endpoints
from serve.gateway.model_state import ModelState
from serve.gateway.revisions import CHANGE_SECONDS, NONE, Change, Report, Revision
from serve.telemetry.definitions import UNAVAILABLE
from serve.telemetry.recorder import Metrics

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

COORDINATOR_AWAY_SECONDS = 1.0
FIRST_SECONDS = 5.0

log = logging.getLogger("convoy.repository")


class Decides(Protocol):
    """The coordinator: see `serve.deployments.coordinator.CoordinatorClient`."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change:
        """Asks for a model to be loaded or unloaded on every gateway. `known`: the revision that the caller has."""
        ...

    async def follow(self, follower: str, known: Revision, report: Report) -> Revision:
        """The first revision after `known`; waits for it, up to a limit."""
        ...

    async def report(self, follower: str, report: Report) -> None:
        """Reports the state of the models of a gateway."""
        ...


class Repository:
    """Applies the declared catalog and the coordinator's revisions of it, and puts the endpoints that serve into the data plane.

    Each model has its own state. A model that cannot be loaded is reported and retried, and delays no other model.
    """

    def __init__(
        self,
        plane: DataPlane,
        loader: CatalogLoader,
        coordinator: Decides,
        follower: str,
        metrics: Metrics,
        experiments: Experiments | None = None,
    ) -> None:
        """`follower`: the name of this gateway, unique in the cluster."""
        self._plane = plane
        self._loader = loader
        self._coordinator = coordinator
        self._follower = follower
        self._metrics = metrics
        self._experiments = experiments
        self._states: dict[str, ModelState] = {}
        self._declared = Catalog(models=())  # its models should serve
        self._in_effect = Catalog(models=())  # its ensembles, cascades and experiments serve
        self._known = Revision(NONE)
        self._composed: dict[str, ComposedEndpoint] = {}  # the ensembles and cascades that serve
        self._problems: dict[str, str] = {}  # why an ensemble or cascade could not be built
        self._gauges: dict[tuple[str, str], float] = {}
        self._declaring = asyncio.Lock()
        self._heard = asyncio.Event()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        plane.absences = self.absences

    def start(self) -> None:
        """Starts to follow the coordinator's revisions."""
        self._spawn(self._follow())
        self._spawn(self._report_changes())

    async def declare(self, catalog: Catalog) -> None:
        """Applies a new catalog. Returns when each of its models serves or has failed. Unloaded models stay unloaded.

        Models that the new catalog lacks serve until its models are loaded, so that no name is missing meanwhile.
        """
        if not self._heard.is_set():  # a gateway that starts late must not serve unloaded models
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), FIRST_SECONDS)
        async with self._declaring:
            self._declared = catalog
            self._want()
            await self._settled()
            if self._experiments is not None:
                await self._experiments.declare(catalog.experiments)
            self._in_effect = catalog
            for name in self._states.keys() - {model.name for model in catalog.models}:
                self._states[name].want(None)
            self._serve()
            await self._settled()

    def check_start(self) -> None:
        """Raises NotReady with every reason when none of the models could be loaded.

        A gateway that serves nothing must not count as started: a rolling update would replace a working gateway by it.
        """
        reasons = [f"{name}: {state.problem}" for name, state in self._states.items() if state.problem]
        if reasons and not self._plane.endpoints.by_name:
            raise NotReady("no model could be loaded: " + "; ".join(reasons))

    async def check_health(self) -> None:
        """Probes the engines of this process. Raises EngineFailed, with every reason, when none of them answers.

        All engines fail together when the process is at fault, for example after a lost GPU context, and a restart
        helps. An engine that fails alone is reported for its model.
        """
        engines = self._local_engines()
        outcomes = await asyncio.gather(*(engine.probe() for engine in engines.values()), return_exceptions=True)
        self._set_gauges()
        failures = [
            f"{name}: {reason_of(error)}"
            for name, error in zip(engines, outcomes, strict=True)
            if isinstance(error, Exception)
        ]
        if failures and len(failures) == len(engines):
            raise EngineFailed("no engine of this gateway answers: " + "; ".join(failures))

    def index(self, only_ready: bool = False) -> list[RepositoryEntry]:
        """Every name that clients can call, with its state."""
        entries = sorted(self._entries(), key=lambda entry: entry.name)
        return [entry for entry in entries if entry.state == "READY" or not only_ready]

    def problems(self) -> list[RepositoryEntry]:
        """Every name that does not serve as it is configured. A model is listed once, by the name of its image form."""
        entries = (entry for entry in self.index() if not entry.name.endswith(TENSOR_SUFFIX))
        return [entry for entry in entries if entry.state != "READY" or entry.reason]

    def absences(self) -> dict[str, Absence]:
        """Every declared name that does not serve, unloaded models included."""
        models = {model.name: self._absence(model.name) for model in self._declared.models}
        absent = {name: absence for name, absence in models.items() if absence is not None}
        problems = self._problems | (self._experiments.problems if self._experiments is not None else {})
        served = self._plane.endpoints.by_name
        absent = absences(self._compositions(), absent, problems)
        return {name: absence for name, absence in absent.items() if name not in served}

    async def load(self, name: str) -> None:
        """Loads a model in every gateway. Raises NotFound, ArtifactError or NotReady."""
        model = self._model(name)
        change = await self._change(model, True)
        problems = dict(change.problems)
        if own := self._states[model].problem:
            problems[self._follower] = own
        if problems:
            raise ArtifactError(_failure(model, problems, max(change.gateways, len(problems))))

    async def unload(self, name: str) -> None:
        """Unloads a model, in both its forms, in every gateway. Raises NotFound or NotReady."""
        await self._change(self._model(name), False)

    def close(self) -> None:
        """Stops following the coordinator and loading models."""
        for task in self._tasks:
            task.cancel()
        for state in self._states.values():
            state.close()

    def _local_engines(self) -> dict[str, Executor]:
        """Those that are in this process's memory, by model."""
        executors = {name: state.serving[0].executor for name, state in self._states.items() if state.serving}
        return {name: executor for name, executor in executors.items() if executor.loaded}

    def _model(self, name: str) -> str:
        model = name.removesuffix(TENSOR_SUFFIX)
        if model not in {config.name for config in self._declared.models}:
            raise NotFound(f"model {name[:200]!r} is not in the catalog; add it to convoy.yaml and deploy")
        return model

    async def _change(self, model: str, loaded: bool) -> Change:
        """Changes a model in every gateway. Applies it here too: a coordinator that just started may not know this gateway."""
        change = await self._coordinator.set_loaded(model, loaded, self._known)
        self._take(change.revision)
        try:
            await asyncio.wait_for(self._states[model].settled.wait(), CHANGE_SECONDS)
        except TimeoutError as error:
            raise NotReady(
                f"{model} is still changing after {CHANGE_SECONDS:.0f} s; see the repository's index"
            ) from error
        return change

    def _entries(self) -> Iterator[RepositoryEntry]:
        for endpoint in self._plane.endpoints.by_name.values():
            yield self._present(endpoint)
        absent = self.absences()
        for model in self._declared.models:
            for name in (model.name, model.name + TENSOR_SUFFIX):
                if name in absent:
                    yield RepositoryEntry(name, model.version, absent[name].state, absent[name].reason)
        for composition in self._compositions():
            if (absence := absent.get(composition.name)) is not None:
                version = VERSION if isinstance(composition, Experiment) else composition.version
                yield RepositoryEntry(composition.name, version, absence.state, absence.reason)

    def _present(self, endpoint: Endpoint) -> RepositoryEntry:
        if endpoint.trouble:
            return RepositoryEntry(endpoint.name, endpoint.version, "UNAVAILABLE", endpoint.trouble)
        state = self._states.get(endpoint.name.removesuffix(TENSOR_SUFFIX))
        if state is not None and state.wanted is None:
            return RepositoryEntry(endpoint.name, endpoint.version, "UNLOADING")
        problem = state.problem if state is not None else ""
        return RepositoryEntry(endpoint.name, endpoint.version, "READY", problem and f"still as before: {problem}")

    def _absence(self, name: str) -> Absence | None:
        state = self._states.get(name)
        if state is not None and state.serving:
            return None
        if name in self._known.unloaded:
            return unloaded(name, under_way=state is not None and not state.settled.is_set())
        # During a retry the reason is that of the previous attempt.
        return failed(name, state.problem) if state is not None and state.problem else loading(name)

    def _compositions(self) -> list[Composition]:
        experiments = self._experiments.definitions if self._experiments is not None else ()
        return [*self._in_effect.ensembles, *self._in_effect.cascades, *experiments]

    async def _follow(self) -> None:
        while True:
            try:
                revision = await self._coordinator.follow(self._follower, self._known, self._report())
            except ConvoyError:  # the coordinator is unreachable: the last revision stays in effect
                await asyncio.sleep(COORDINATOR_AWAY_SECONDS)
                continue
            self._take(revision)
            self._heard.set()

    def _take(self, revision: Revision) -> None:
        if revision.number > self._known.number:
            self._known = revision
            self._want()

    async def _report_changes(self) -> None:
        """Reports every change at once. A report that is lost is repeated by the next call of `follow`."""
        while True:
            await self._news.wait()
            self._news.clear()
            with contextlib.suppress(ConvoyError):
                await self._coordinator.report(self._follower, self._report())

    def _report(self) -> Report:
        pending = frozenset(name for name, state in self._states.items() if not state.settled.is_set())
        return Report(
            self._known.number, pending, {name: state.problem for name, state in self._states.items() if state.problem}
        )

    def _want(self) -> None:
        """Sets the wanted state of each model: as declared, or unloaded. Failed models are retried."""
        for model in self._declared.models:
            if model.name not in self._states:
                self._states[model.name] = ModelState(self._loader.load, self._serve, self._publish)
            self._states[model.name].want(None if model.name in self._known.unloaded else model)

    async def _settled(self) -> None:
        await asyncio.gather(*(state.settled.wait() for state in self._states.values()))

    def _serve(self) -> None:
        """Rebuilds the endpoints from the models' present states."""
        models = [form for state in self._states.values() for form in state.serving]
        before = self._composed
        composed, problems = self._loader.compose(self._in_effect, models, before)
        self._composed = {endpoint.name: endpoint for endpoint in composed}
        for name in problems.keys() - self._problems.keys():
            log.warning("%s cannot be served: %s", name, problems[name])
        self._problems = problems
        endpoints = Endpoints([*models, *composed])
        self._plane.replace(endpoints if self._experiments is None else self._experiments.bind(endpoints))
        if replaced := [endpoint for name, endpoint in before.items() if self._composed.get(name) is not endpoint]:
            self._spawn(close_endpoints(replaced))
        self._publish()

    def _publish(self) -> None:
        """Reports the models' states to the coordinator and to the metrics."""
        self._news.set()
        self._set_gauges()

    def _set_gauges(self) -> None:
        absent, before = self.absences(), self._gauges
        self._gauges = {
            (config.name, config.version): self._unavailable(config.name, absent.get(config.name))
            for config in (*self._declared.models, *compositions_of(self._in_effect))
        }
        for (name, version), value in (dict.fromkeys(before, math.nan) | self._gauges).items():
            self._metrics.set(UNAVAILABLE, value, model=name, version=version)

    def _unavailable(self, name: str, absence: Absence | None) -> float:
        """1 for a declared name that does not serve as configured, 0 for one that does, NaN for an unloaded one."""
        if absence is not None:
            return math.nan if absence.unloaded else float(absence.state == "UNAVAILABLE")
        state = self._states.get(name)
        return float(state is not None and (bool(state.problem) or any(form.trouble for form in state.serving)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _failure(model: str, problems: Mapping[str, str], gateways: int) -> str:
    """Why a model could not be loaded, with the number of gateways where only some failed."""
    reasons = "; ".join(dict.fromkeys(problems.values()))
    if len(problems) < gateways:
        return f"{len(problems)} of {gateways} gateways could not load {model}: {reasons}"
    return reasons


def check_load(parameters: Mapping[str, object]) -> None:
    """Raises InvalidInput for any parameter: convoy.yaml and the artifact define a model."""
    if parameters:
        name = next(iter(parameters))[:60]
        raise InvalidInput(f"parameter {name!r} is not offered: configure the model in convoy.yaml and deploy")


def check_unload(parameters: Mapping[str, object]) -> None:
    """Raises InvalidInput. `unload_dependents` has no effect: the two forms of a model are always unloaded together."""
    for name, value in parameters.items():
        if name != "unload_dependents" or not isinstance(value, bool):
            raise InvalidInput(f"unload takes the parameter unload_dependents (true or false), not {name[:60]!r}")
