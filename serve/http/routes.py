"""Everything over HTTP that is not hot: health, metadata, the plan, the page; errors of unknown paths and methods."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from convoy.errors import ConvoyError, InvalidInput, NotFound, NotReady
from convoy.wire import oip_metadata
from serve.api import model_metadata
from serve.api.bottleneck import Window, profile, read
from serve.api.explain import explain
from serve.api.model_statistics import statistics
from serve.cluster.service_discovery import ray_nodes, scrape_targets
from serve.config.schema import Settings
from serve.gateway.dataplane import DataPlane, log_fault
from serve.gateway.repository import Repository, check_load, check_unload
from serve.http.auth import Guard, Rights
from serve.http.body import Message, Receive, Scope, Send
from serve.http.dialects import DIALECTS
from serve.http.experiment_routes import experiment_routes
from serve.http.openapi import openapi
from serve.http.responses import REQUEST_ID, answer, error_headers, id_header, read_document, send_error
from serve.http.web_page import page_routes
from serve.telemetry.request_events import FAULT

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

COLD_BODY_BYTES = 1024 * 1024
SHORTEST_WINDOW, LONGEST_WINDOW = 0.1, 60.0  # seconds of a profile


class Routes:
    """Handlers of the cold routes. A model's name may be percent-encoded; a version is digits."""

    def __init__(self, plane: DataPlane, repository: Repository, settings: Settings) -> None:
        self._plane = plane
        self._repository = repository
        self._settings = settings
        self._rights = Rights(plane.access)

    async def healthz(self, request: Request) -> Response:
        """KubeRay's probe."""
        return Response("draining" if self._plane.draining else "success", 503 if self._plane.draining else 200)

    async def ping(self, request: Request) -> Response:
        """TorchServe's health check."""
        return answer(
            {"status": "Unhealthy" if self._plane.draining else "Healthy"}, 503 if self._plane.draining else 200
        )

    async def openapi(self, request: Request) -> Response:
        names = self._callable(request, self._plane.endpoints.by_name)
        return answer(openapi(names))

    async def live(self, request: Request) -> Response:
        return answer(oip_metadata.live(True))

    async def ready(self, request: Request) -> Response:
        if self._plane.draining:
            return answer(oip_metadata.ready(False, "the server is draining"), 503)
        return answer(oip_metadata.ready(True))

    async def server(self, request: Request) -> Response:
        return answer(model_metadata.server())

    async def models(self, request: Request) -> Response:
        served = self._plane.endpoints.by_name
        endpoints = [served[name] for name in self._callable(request, served)]
        models = [model_metadata.model(one) for one in endpoints if one.form == "image"]
        problems = [one for one in self._repository.problems() if self._rights.may_call(request, one.name)]
        return answer({"models": models, "problems": oip_metadata.repository_index(problems)})

    async def model_names(self, request: Request) -> Response:
        return answer({"models": sorted(self._callable(request, self._plane.endpoints.by_name))})

    async def model_ready(self, request: Request) -> Response:
        try:
            endpoint = self._find(request)
        except NotReady as error:
            return answer(oip_metadata.model_ready(request.path_params["name"], False, str(error)), 503)
        trouble = endpoint.trouble
        return answer(oip_metadata.model_ready(endpoint.name, not trouble, trouble), 503 if trouble else 200)

    async def model_metadata(self, request: Request) -> Response:
        return answer(oip_metadata.model_metadata(model_metadata.info(self._find(request))))

    async def model_config(self, request: Request) -> Response:
        return answer(oip_metadata.model_config(model_metadata.info(self._find(request))))

    async def statistics(self, request: Request) -> Response:
        name, version = request.path_params.get("name", ""), request.path_params.get("version", "")
        if name:
            self._rights.check_call(request, name)
        else:
            self._rights.check_overview(request)
        return answer(await statistics(self._plane, self._settings.node_dir / "metrics", name, version))

    async def repository_index(self, request: Request) -> Response:
        wanted = (await read_document(request, COLD_BODY_BYTES)).get("ready", False)
        if not isinstance(wanted, bool):
            raise InvalidInput("ready must be true or false")
        entries = [one for one in self._repository.index(wanted) if self._rights.may_call(request, one.name)]
        return answer(oip_metadata.repository_index(entries))

    async def load(self, request: Request) -> Response:
        self._rights.check_change(request)
        name = request.path_params["name"]
        check_load(await read_parameters(request))
        await self._repository.load(name)
        return answer({"name": name, "load": True})

    async def unload(self, request: Request) -> Response:
        self._rights.check_change(request)
        name = request.path_params["name"]
        check_unload(await read_parameters(request))
        await self._repository.unload(name)
        return answer({"name": name, "unload": True})

    async def explain(self, request: Request) -> Response:
        self._rights.check_overview(request)
        problems = oip_metadata.repository_index(self._repository.problems())
        return answer(explain(self._plane, self._settings) | {"problems": problems})

    async def profile(self, request: Request) -> Response:
        """Looks at the whole node for some seconds."""
        self._rights.check_overview(request)
        seconds = _seconds(request.query_params.get("seconds", "2"))
        folder = self._settings.node_dir / "metrics"
        before = await asyncio.to_thread(read, folder)
        await asyncio.sleep(seconds)
        after = await asyncio.to_thread(read, folder)
        served = [model.config for model in self._plane.endpoints.models]
        return answer(profile(Window(before, after), self._settings, served))

    async def scrape_targets(self, request: Request) -> Response:
        """For Prometheus' HTTP service discovery."""
        self._rights.check_overview(request)
        return answer(scrape_targets(self._settings.listen, await asyncio.to_thread(ray_nodes)))

    async def unknown_model(self, request: Request) -> Response:
        """Hot paths of known models never come here."""
        endpoint = self._find(request)
        raise NotFound(f"model {endpoint.name!r} has no such method")

    def _callable(self, request: Request, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._rights.may_call(request, name)]

    def _find(self, request: Request) -> Any:
        self._rights.check_call(request, request.path_params["name"])
        return self._plane.find(request.path_params["name"], request.path_params.get("version", ""))


async def read_parameters(request: Request) -> dict[str, Any]:
    """The `parameters` in a body. Raises InvalidInput or TooLarge."""
    parameters = (await read_document(request, COLD_BODY_BYTES)).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidInput("parameters must be an object")
    return parameters


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_WINDOW <= seconds <= LONGEST_WINDOW:
        raise InvalidInput(f"seconds is {text[:40]!r}; it must be from {SHORTEST_WINDOW} to {LONGEST_WINDOW}")
    return seconds


async def convoy_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ConvoyError):
        raise error
    response = answer({"error": str(error)}, error.http_status)
    response.raw_headers += error_headers(error)
    if error.http_status == 500:
        identifier = identify(request.scope)
        log_fault(error, identifier)
        response.raw_headers += id_header(identifier)
    return response


async def http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    texts = {404: f"no such path: {request.url.path[:200]}", 405: f"{request.method} is not allowed here"}
    return Response(
        orjson.dumps({"error": texts.get(error.status_code, error.detail)}),
        error.status_code,
        headers=error.headers,
        media_type="application/json",
    )


class Faults:
    """ASGI: what nobody foresaw is logged by the request's id, and the client gets no part of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as error:
            identifier = identify(scope)
            log_fault(error, identifier)
            if begun:  # too late for another answer: the connection ends
                raise
            await send_error(send, receive, ConvoyError(FAULT), identifier)


def identify(scope: Scope) -> str:
    """The id that a client gave its request, or a new one."""
    given: str = dict(scope["headers"]).get(REQUEST_ID, b"").decode("latin-1")
    return given if id_header(given) else secrets.token_hex(8)


def build_routes(
    plane: DataPlane, repository: Repository, settings: Settings, experiments: Experiments | None = None
) -> ASGIApp:
    """The application of the cold routes."""
    application = Starlette(
        routes=cold_routes(plane, repository, settings, experiments),
        middleware=[Middleware(Faults)],
        exception_handlers={ConvoyError: convoy_error, HTTPException: http_error},
    )
    return Guard(application, plane.access)


def cold_routes(
    plane: DataPlane, repository: Repository, settings: Settings, experiments: Experiments | None
) -> list[BaseRoute]:
    pages = Routes(plane, repository, settings)
    of_model = [
        Route(f"/v2/models/{{name}}{version}{tail}", handler, methods=methods)
        for version in ("", "/versions/{version}")
        for tail, handler, methods in (
            ("", pages.model_metadata, ["GET"]),
            ("/ready", pages.model_ready, ["GET"]),
            ("/config", pages.model_config, ["GET"]),
            ("/stats", pages.statistics, ["GET"]),
            ("/infer", pages.unknown_model, ["POST"]),
        )
    ]
    return [
        *page_routes(plane, settings),
        Route("/-/healthz", pages.healthz),
        Route("/v1/models", pages.models),
        Route("/v1/explain", pages.explain),
        Route("/v1/profile", pages.profile),
        Route("/v1/scrape-targets", pages.scrape_targets),
        *(
            Route(path.format("{name}", "{version}"), pages.unknown_model, methods=["POST"])
            for dialect in DIALECTS
            for path in dialect.paths
        ),
        Route("/v1/models/{name}", pages.model_ready),
        Route("/ping", pages.ping),
        Route("/openapi.json", pages.openapi),
        Route("/v2", pages.server),
        Route("/v2/", pages.server),
        Route("/v2/health/live", pages.live),
        Route("/v2/health/ready", pages.ready),
        Route("/v2/models", pages.model_names),
        Route("/v2/models/stats", pages.statistics),
        *of_model,
        Route("/v2/repository/index", pages.repository_index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", pages.load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", pages.unload, methods=["POST"]),
        *experiment_routes(plane, experiments),
    ]
