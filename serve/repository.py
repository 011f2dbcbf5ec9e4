"""The models of the catalog and which of them serve: the protocol's model repository, the same through every gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

from convoy.errors import ArtifactError, ConvoyError, InvalidInput, NotFound, NotReady
from convoy.metadata import RepositoryEntry, State
from serve.catalog import trouble_of
from serve.config import TENSOR_SUFFIX, Catalog
from serve.dataplane import DataPlane
from serve.steward import Revision

STEWARD_AWAY_SECONDS = 1.0
FIRST_SECONDS = 5.0
NONE = -1  # older than every revision, so that the steward answers at once

log = logging.getLogger("convoy.repository")


class Decides(Protocol):
    """The steward: see `serve.steward.StewardClient`."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Revision: ...

    async def follow(self, follower: str, known: Revision, effective: int) -> Revision: ...

    async def report(self, follower: str, effective: int) -> None: ...


class Repository:
    """Follows the declared catalog and the steward's revisions of it; `serve` brings a catalog into effect."""

    def __init__(
        self, plane: DataPlane, serve: Callable[[Catalog], Awaitable[None]], steward: Decides, follower: str
    ) -> None:
        """`follower` tells this gateway from the others."""
        self._plane = plane
        self._serve = serve
        self._steward = steward
        self._follower = follower
        self._declared = Catalog(models=())
        self._known = Revision(NONE)
        self._effective = NONE
        self._problems: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._heard = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins to follow the steward."""
        self._spawn(self._follow())

    async def declare(self, catalog: Catalog) -> None:
        """A new declared state. What was unloaded stays so. Raises ConvoyError when there is nothing else to serve."""
        if not self._heard.is_set():  # a gateway that starts late must not serve what is unloaded
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), FIRST_SECONDS)
        self._declared = catalog
        try:
            await self._apply()
        except ConvoyError:
            if not self._plane.endpoints.by_name:
                raise
            log.exception("the new catalog was not taken; the present one stays")

    def index(self, only_ready: bool = False) -> list[RepositoryEntry]:
        """Every name that clients can call, with its state."""
        entries = sorted(self._entries(), key=lambda entry: entry.name)
        return [entry for entry in entries if entry.state == "READY" or not only_ready]

    async def load(self, name: str) -> None:
        """Puts a model into service in every gateway. Raises NotFound, ArtifactError or NotReady."""
        model = self._model(name)
        if model not in self._plane.endpoints.by_name:
            await self._steward.set_loaded(model, True, self._known)
        if model not in self._plane.endpoints.by_name:
            raise ArtifactError(self._problems.get(model) or f"{model} could not be loaded")

    async def unload(self, name: str) -> None:
        """Takes a model, in both its forms, out of service in every gateway. Raises NotFound or NotReady."""
        await self._steward.set_loaded(self._model(name), False, self._known)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _model(self, name: str) -> str:
        model = name.removesuffix(TENSOR_SUFFIX)
        if model not in {one.name for one in self._declared.models}:
            raise NotFound(f"model {name[:200]!r} is not in the catalog; add it to convoy.yaml and deploy")
        return model

    def _entries(self) -> Iterator[RepositoryEntry]:
        serving = self._plane.endpoints.by_name
        for endpoint in serving.values():
            state: State = "UNLOADING" if endpoint.name.removesuffix(TENSOR_SUFFIX) in self._known.unloaded else "READY"
            trouble = trouble_of(endpoint)
            yield RepositoryEntry(endpoint.name, endpoint.version, "UNAVAILABLE" if trouble else state, trouble)
        for model in self._declared.models:
            for name in (model.name, model.name + TENSOR_SUFFIX):
                if name not in serving:
                    yield RepositoryEntry(name, model.version, *self._absence(model.name))

    def _absence(self, model: str) -> tuple[State, str]:
        if model in self._known.unloaded:
            return "UNAVAILABLE", "unloaded"
        if model in self._problems:
            return "UNAVAILABLE", self._problems[model]
        return "LOADING", "being loaded"

    async def _follow(self) -> None:
        while True:
            try:
                revision = await self._steward.follow(self._follower, self._known, self._effective)
            except NotReady:  # the steward is away: what is known stays in force
                await asyncio.sleep(STEWARD_AWAY_SECONDS)
                continue
            if revision.number > self._known.number:
                self._known = revision
                if self._heard.is_set():
                    self._spawn(self._take())
                else:
                    self._effective = revision.number  # nothing is served yet
            self._heard.set()

    async def _take(self) -> None:
        try:
            await self._apply()
        except ConvoyError:
            log.exception("revision %d could not be brought into effect", self._known.number)
        await self._steward.report(self._follower, self._effective)

    async def _apply(self) -> None:
        async with self._changing:
            known = self._known
            wanted = self._declared.without(known.unloaded)
            self._plane.absent = self._absent()
            serving = self._plane.endpoints.by_name
            missing = [model.name for model in wanted.models if model.name not in serving]
            try:
                await self._serve(wanted)
            except ConvoyError as error:
                self._problems |= dict.fromkeys(missing, str(error))
                raise
            else:
                for name in missing:
                    self._problems.pop(name, None)
            finally:
                self._effective = known.number
                self._plane.absent = self._absent()

    def _absent(self) -> dict[str, ConvoyError]:
        """Why each model that is in the catalog and not served is not there."""
        errors: dict[str, ConvoyError] = {}
        for entry in self._entries():
            if entry.state == "LOADING":
                errors[entry.name] = NotReady(f"model {entry.name!r} is being loaded; retry")
            elif entry.state == "UNAVAILABLE":
                remedy = f"POST /v2/repository/models/{entry.name}/load"
                errors[entry.name] = NotFound(f"model {entry.name!r} is not loaded ({entry.reason}); {remedy}")
        return errors

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
