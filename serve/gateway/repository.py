"""The models of the catalog and which of them serve: the protocol's model repository, the same through every gateway."""

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
from serve.executors.lazy import LazyExecutor
from serve.executors.local import LocalExecutor
from serve.gateway.availability import Absence, MadeOfModels, absences, failed, loading, unloaded
from serve.gateway.catalog_loader import CatalogLoader, close_endpoints
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import ComposedEndpoint, Endpoint, Endpoints, trouble_of
from serve.gateway.model_state import ModelState
from serve.gateway.revisions import CHANGE_SECONDS, NONE, Change, Report, Revision
from serve.telemetry.definitions import UNAVAILABLE
from serve.telemetry.recorder import Metrics

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

STEWARD_AWAY_SECONDS = 1.0
FIRST_SECONDS = 5.0

log = logging.getLogger("convoy.repository")


class Decides(Protocol):
    """The steward: see `serve.deployments.coordinator.StewardClient`."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change: ...

    async def follow(self, follower: str, known: Revision, report: Report) -> Revision: ...

    async def report(self, follower: str, report: Report) -> None: ...


class Repository:
    """Follows the declared catalog and the steward's revisions of it, and puts what serves into the data plane.

    Each model has a state of its own: one that cannot be loaded is told of and tried again, and holds up no other one.
    """

    def __init__(
        self,
        plane: DataPlane,
        loader: CatalogLoader,
        steward: Decides,
        follower: str,
        metrics: Metrics,
        experiments: Experiments | None = None,
    ) -> None:
        """`follower` tells this gateway from the others."""
        self._plane = plane
        self._loader = loader
        self._steward = steward
        self._follower = follower
        self._metrics = metrics
        self._experiments = experiments
        self._states: dict[str, ModelState] = {}
        self._declared = Catalog(models=())  # whose models are wanted
        self._in_effect = Catalog(models=())  # whose ensembles, cascades and experiments are served
        self._known = Revision(NONE)
        self._problems: dict[str, str] = {}  # of what is made of models
        self._shown: dict[tuple[str, str], float] = {}
        self._declaring = asyncio.Lock()
        self._heard = asyncio.Event()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        plane.absences = self.absences

    def start(self) -> None:
        """Begins to follow the steward."""
        self._spawn(self._follow())
        self._spawn(self._tell_steward())

    async def declare(self, catalog: Catalog) -> None:
        """A new declared state; returns when each model serves or has failed. What was unloaded stays so.

        What is gone from the catalog serves until all that is new has been loaded, so that no name is missing meanwhile.
        """
        if not self._heard.is_set():  # a gateway that starts late must not serve what is unloaded
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

        A gateway that serves nothing must not count as started: a rolling update would replace by it one that serves.
        """
        reasons = [f"{name}: {state.problem}" for name, state in self._states.items() if state.problem]
        if reasons and not self._plane.endpoints.by_name:
            raise NotReady("no model could be loaded: " + "; ".join(reasons))

    async def check_health(self) -> None:
        """Finds out which engines of this process answer. Raises EngineFailed, with every reason, when none of them does.

        Another process may cure what they share, as a lost context of a card; one that fails alone is this model's affair.
        """
        engines = self._local_engines()
        found = await asyncio.gather(*(engine.probe() for engine in engines.values()), return_exceptions=True)
        self._show()
        failures = [
            f"{name}: {reason_of(error)}"
            for name, error in zip(engines, found, strict=True)
            if isinstance(error, Exception)
        ]
        if failures and len(failures) == len(engines):
            raise EngineFailed("no engine of this gateway answers: " + "; ".join(failures))

    def index(self, only_ready: bool = False) -> list[RepositoryEntry]:
        """Every name that clients can call, with its state."""
        entries = sorted(self._entries(), key=lambda entry: entry.name)
        return [entry for entry in entries if entry.state == "READY" or not only_ready]

    def problems(self) -> list[RepositoryEntry]:
        """Every name that does not serve as it is configured; of a model that of its images, which stands for both forms."""
        entries = (one for one in self.index() if not one.name.endswith(TENSOR_SUFFIX))
        return [one for one in entries if one.state != "READY" or one.reason]

    def absences(self) -> dict[str, Absence]:
        """Every name that is wanted or could be loaded, and does not answer."""
        models = {model.name: self._absence(model.name) for model in self._declared.models}
        absent = {name: absence for name, absence in models.items() if absence is not None}
        problems = self._problems | (self._experiments.problems if self._experiments is not None else {})
        served = self._plane.endpoints.by_name
        found = absences(self._made_of_models(), absent, problems)
        return {name: absence for name, absence in found.items() if name not in served}

    async def load(self, name: str) -> None:
        """Puts a model into service in every gateway. Raises NotFound, ArtifactError or NotReady."""
        model = self._model(name)
        change = await self._change(model, True)
        problems = dict(change.problems)
        if own := self._states[model].problem:
            problems[self._follower] = own
        if problems:
            raise ArtifactError(_failure(model, problems, max(change.gateways, len(problems))))

    async def unload(self, name: str) -> None:
        """Takes a model, in both its forms, out of service in every gateway. Raises NotFound or NotReady."""
        await self._change(self._model(name), False)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for state in self._states.values():
            state.close()

    def _local_engines(self) -> dict[str, LocalExecutor | LazyExecutor]:
        """Those that are in this process's memory, by model."""
        executors = {name: state.serving[0].executor for name, state in self._states.items() if state.serving}
        return {
            name: one
            for name, one in executors.items()
            if isinstance(one, LocalExecutor) or (isinstance(one, LazyExecutor) and one.loaded)
        }

    def _model(self, name: str) -> str:
        model = name.removesuffix(TENSOR_SUFFIX)
        if model not in {one.name for one in self._declared.models}:
            raise NotFound(f"model {name[:200]!r} is not in the catalog; add it to convoy.yaml and deploy")
        return model

    async def _change(self, model: str, loaded: bool) -> Change:
        """The steward decides. One that has just begun may not know this gateway yet, so it also waits for itself."""
        change = await self._steward.set_loaded(model, loaded, self._known)
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
        for made in self._made_of_models():
            if made.name in absent:
                version = VERSION if isinstance(made, Experiment) else made.version
                yield RepositoryEntry(made.name, version, absent[made.name].state, absent[made.name].reason)

    def _present(self, endpoint: Endpoint) -> RepositoryEntry:
        if trouble := trouble_of(endpoint):
            return RepositoryEntry(endpoint.name, endpoint.version, "UNAVAILABLE", trouble)
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
        # While it is tried again, the reason is still that of the last time.
        return failed(name, state.problem) if state is not None and state.problem else loading(name)

    def _made_of_models(self) -> list[MadeOfModels]:
        experiments = self._experiments.definitions if self._experiments is not None else ()
        return [*self._in_effect.ensembles, *self._in_effect.cascades, *experiments]

    async def _follow(self) -> None:
        while True:
            try:
                revision = await self._steward.follow(self._follower, self._known, self._report())
            except ConvoyError:  # the steward is away: what is known stays in force
                await asyncio.sleep(STEWARD_AWAY_SECONDS)
                continue
            self._take(revision)
            self._heard.set()

    def _take(self, revision: Revision) -> None:
        if revision.number > self._known.number:
            self._known = revision
            self._want()

    async def _tell_steward(self) -> None:
        """Reports at once what a revision has come to; what is lost is told again by the next question."""
        while True:
            await self._news.wait()
            self._news.clear()
            with contextlib.suppress(ConvoyError):
                await self._steward.report(self._follower, self._report())

    def _report(self) -> Report:
        pending = frozenset(name for name, state in self._states.items() if not state.settled.is_set())
        return Report(
            self._known.number, pending, {name: one.problem for name, one in self._states.items() if one.problem}
        )

    def _want(self) -> None:
        """Of each model of the catalog what is declared, or nothing; what failed is tried again."""
        for model in self._declared.models:
            if model.name not in self._states:
                self._states[model.name] = ModelState(self._loader.load, self._serve, self._tell)
            self._states[model.name].want(None if model.name in self._known.unloaded else model)

    async def _settled(self) -> None:
        await asyncio.gather(*(state.settled.wait() for state in self._states.values()))

    def _serve(self) -> None:
        """Brings into effect what the models' states are now."""
        models = [form for state in self._states.values() for form in state.serving]
        present = self._plane.endpoints
        composed, problems = self._loader.compose(self._in_effect, models, present)
        for name in problems.keys() - self._problems.keys():
            log.warning("%s cannot be served: %s", name, problems[name])
        self._problems = problems
        endpoints = Endpoints([*models, *composed])
        self._plane.replace(endpoints if self._experiments is None else self._experiments.bind(endpoints))
        kept = set(map(id, composed))
        gone = [one for one in present.by_name.values() if isinstance(one, ComposedEndpoint) and id(one) not in kept]
        if gone:
            self._spawn(close_endpoints(gone))
        self._tell()

    def _tell(self) -> None:
        """Tells steward and metrics how the models are."""
        self._news.set()
        self._show()

    def _show(self) -> None:
        absent, shown = self.absences(), self._shown
        self._shown = {
            (one.name, one.version): self._unavailable(one.name, absent.get(one.name))
            for one in (*self._declared.models, *compositions_of(self._in_effect))
        }
        for (name, version), value in (dict.fromkeys(shown, math.nan) | self._shown).items():
            self._metrics.set(UNAVAILABLE, value, model=name, version=version)

    def _unavailable(self, name: str, absence: Absence | None) -> float:
        """1 where what is wanted does not serve, NaN where nothing is wanted."""
        if absence is not None:
            return math.nan if absence.unloaded else float(absence.state == "UNAVAILABLE")
        state = self._states.get(name)
        return float(state is not None and (bool(state.problem) or any(map(trouble_of, state.serving))))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _failure(model: str, problems: Mapping[str, str], gateways: int) -> str:
    """Why a model could not be loaded, and in how many gateways where it could in others."""
    reasons = "; ".join(dict.fromkeys(problems.values()))
    if len(problems) < gateways:
        return f"{len(problems)} of {gateways} gateways could not load {model}: {reasons}"
    return reasons


def check_load(parameters: Mapping[str, object]) -> None:
    """Raises InvalidInput for what a load cannot be told: a model is what convoy.yaml and its artifact say."""
    if parameters:
        name = next(iter(parameters))[:60]
        raise InvalidInput(f"parameter {name!r} is not offered: configure the model in convoy.yaml and deploy")


def check_unload(parameters: Mapping[str, object]) -> None:
    """Raises InvalidInput. `unload_dependents` may be said either way: the two forms of a model go together."""
    for name, value in parameters.items():
        if name != "unload_dependents" or not isinstance(value, bool):
            raise InvalidInput(f"unload takes the parameter unload_dependents (true or false), not {name[:60]!r}")
