"""The HTTP routes other than inference: health, metadata, model repository, explain, the web page, and unknown paths."""

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
from serve.gateway.request_tracker import RequestTracker
from serve.http.auth import Guard, Rights
from serve.http.body import Message, Receive, Scope, Send
from serve.http.dialects import DIALECTS
from serve.http.experiment_routes import experiment_routes
from serve.http.http1.head import join_fields
from serve.http.openapi import openapi
from serve.http.responses import REQUEST_ID, answer, error_headers, id_header, read_document, send_error
from serve.http.web_page import page_routes
from serve.telemetry.request_events import FAULT

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

COLD_BODY_BYTES = 1024 * 1024
MIN_PROFILE_SECONDS, MAX_PROFILE_SECONDS = 0.1, 60.0


class Routes:
    """Handlers of the cold routes. Model names may be percent-encoded; a version is digits."""

    def __init__(self, plane: DataPlane, repository: Repository, settings: Settings, requests: RequestTracker) -> None:
        self._plane = plane
        self._repository = repository
        self._requests = requests
        self._settings = settings
        self._rights = Rights(plane.access)

    async def healthz(self, request: Request) -> Response:
        """KubeRay's readiness probe, which expects the text `success`."""
        return Response("draining" if self._plane.draining else "success", 503 if self._plane.draining else 200)

    async def ping(self, request: Request) -> Response:
        """TorchServe's health check."""
        return answer(
            {"status": "Unhealthy" if self._plane.draining else "Healthy"}, 503 if self._plane.draining else 200
        )

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document, with the models that the key may call."""
        names = self._callable(request, self._plane.endpoints.by_name)
        return answer(openapi(names))

    async def live(self, request: Request) -> Response:
        """Open Inference Protocol: whether the process runs."""
        return answer(oip_metadata.live(True))

    async def ready(self, request: Request) -> Response:
        """Open Inference Protocol: whether the server takes requests; 503 while it drains."""
        if self._plane.draining:
            return answer(oip_metadata.ready(False, "the server is draining"), 503)
        return answer(oip_metadata.ready(True))

    async def server(self, request: Request) -> Response:
        """Open Inference Protocol: metadata of the server."""
        return answer(model_metadata.server())

    async def models(self, request: Request) -> Response:
        """The models that serve, and those that cannot, with the reason."""
        served = self._plane.endpoints.by_name
        endpoints = [served[name] for name in self._callable(request, served)]
        models = [model_metadata.model(endpoint) for endpoint in endpoints if endpoint.form == "image"]
        problems = [entry for entry in self._repository.problems() if self._rights.may_call(request, entry.name)]
        return answer({"models": models, "problems": oip_metadata.repository_index(problems)})

    async def model_names(self, request: Request) -> Response:
        """Names of the models that serve."""
        return answer({"models": sorted(self._callable(request, self._plane.endpoints.by_name))})

    async def model_ready(self, request: Request) -> Response:
        """Open Inference Protocol: whether a model answers; 503 with the reason if not."""
        try:
            endpoint = self._find(request)
        except NotReady as error:
            return answer(oip_metadata.model_ready(request.path_params["name"], False, str(error)), 503)
        trouble = endpoint.trouble
        return answer(oip_metadata.model_ready(endpoint.name, not trouble, trouble), 503 if trouble else 200)

    async def model_metadata(self, request: Request) -> Response:
        """Open Inference Protocol: inputs and outputs of a model."""
        return answer(oip_metadata.model_metadata(model_metadata.info(self._find(request))))

    async def model_config(self, request: Request) -> Response:
        """Triton's extension: configuration of a model."""
        return answer(oip_metadata.model_config(model_metadata.info(self._find(request))))

    async def statistics(self, request: Request) -> Response:
        """Triton's extension: counts and times of one model, or of all models."""
        name, version = request.path_params.get("name", ""), request.path_params.get("version", "")
        if name:
            self._rights.check_call(request, name)
        else:
            self._rights.check_overview(request)
        return answer(await statistics(self._plane, self._settings.node_dir / "metrics", name, version))

    async def repository_index(self, request: Request) -> Response:
        """Triton's extension: the models and their states."""
        ready_only = (await read_document(request, COLD_BODY_BYTES)).get("ready", False)
        if not isinstance(ready_only, bool):
            raise InvalidInput("ready must be true or false")
        entries = [entry for entry in self._repository.index(ready_only) if self._rights.may_call(request, entry.name)]
        return answer(oip_metadata.repository_index(entries))

    async def load(self, request: Request) -> Response:
        """Triton's extension: loads a model on every gateway."""
        self._rights.check_change(request)
        name = request.path_params["name"]
        check_load(await read_parameters(request))
        await self._repository.load(name)
        return answer({"name": name, "load": True})

    async def unload(self, request: Request) -> Response:
        """Triton's extension: unloads a model on every gateway."""
        self._rights.check_change(request)
        name = request.path_params["name"]
        check_unload(await read_parameters(request))
        await self._repository.unload(name)
        return answer({"name": name, "unload": True})

    async def explain(self, request: Request) -> Response:
        """The plan of this server: threads, placement, batch limits and problems."""
        self._rights.check_overview(request)
        problems = oip_metadata.repository_index(self._repository.problems())
        return answer(explain(self._plane, self._settings) | {"problems": problems})

    async def profile(self, request: Request) -> Response:
        """Compares two readings of the node's metrics files, `seconds` apart."""
        self._rights.check_overview(request)
        seconds = _seconds(request.query_params.get("seconds", "2"))
        folder = self._settings.node_dir / "metrics"
        before = await asyncio.to_thread(read, folder)
        await asyncio.sleep(seconds)
        after = await asyncio.to_thread(read, folder)
        served = [model.config for model in self._plane.endpoints.models]
        return answer(profile(Window(before, after), self._settings, served))

    async def scrape_targets(self, request: Request) -> Response:
        """The document that Prometheus' HTTP service discovery reads."""
        self._rights.check_overview(request)
        return answer(scrape_targets(self._settings.listen, await asyncio.to_thread(ray_nodes)))

    async def unknown_model(self, request: Request) -> Response:
        """Reached by an inference path only if the model does not serve; `_find` then raises the reason."""
        try:
            endpoint = self._find(request)
            raise NotFound(f"model {endpoint.name!r} has no such method")
        except Exception as error:
            self._requests.count_unserved(request.path_params["name"], self._requests.protocol.code(error))
            raise

    def _callable(self, request: Request, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._rights.may_call(request, name)]

    def _find(self, request: Request) -> Any:
        self._rights.check_call(request, request.path_params["name"])
        return self._plane.find(request.path_params["name"], request.path_params.get("version", ""))


async def read_parameters(request: Request) -> dict[str, Any]:
    """The `parameters` object of a request body. Raises InvalidInput or TooLarge."""
    parameters = (await read_document(request, COLD_BODY_BYTES)).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidInput("parameters must be an object")
    return parameters


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not MIN_PROFILE_SECONDS <= seconds <= MAX_PROFILE_SECONDS:
        raise InvalidInput(f"seconds is {text[:40]!r}; it must be from {MIN_PROFILE_SECONDS} to {MAX_PROFILE_SECONDS}")
    return seconds


async def convoy_error(request: Request, error: Exception) -> Response:
    """The response to a ConvoyError; a 500 is also logged, with the request's id."""
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
    """The response to Starlette's errors, such as 404 and 405, in JSON."""
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
    """ASGI middleware: logs unexpected errors with the request's id, and hides their details from the client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception as error:
            identifier = identify(scope)
            log_fault(error, identifier)
            if begun:  # too late for an error response: the connection closes
                raise
            await send_error(send, ConvoyError(FAULT), identifier)


def identify(scope: Scope) -> str:
    """The client's id of this request if a header can hold it, else a new one."""
    request_id: str = join_fields(scope["headers"]).get(REQUEST_ID, b"").decode("latin-1")
    return request_id if id_header(request_id) else secrets.token_hex(8)


def build_routes(
    plane: DataPlane,
    repository: Repository,
    settings: Settings,
    requests: RequestTracker,
    experiments: Experiments | None = None,
) -> ASGIApp:
    """The ASGI application of the cold routes, with the check of API keys."""
    application = Starlette(
        routes=cold_routes(plane, repository, settings, requests, experiments),
        middleware=[Middleware(Faults)],
        exception_handlers={ConvoyError: convoy_error, HTTPException: http_error},
    )
    return Guard(application, plane.access)


def cold_routes(
    plane: DataPlane,
    repository: Repository,
    settings: Settings,
    requests: RequestTracker,
    experiments: Experiments | None,
) -> list[BaseRoute]:
    """All cold routes. Starlette uses the first match, so `/v2/models/stats` precedes the routes of a model."""
    handlers = Routes(plane, repository, settings, requests)
    model_routes = [
        Route(f"/v2/models/{{name}}{version}{tail}", handler, methods=methods)
        for version in ("", "/versions/{version}")
        for tail, handler, methods in (
            ("", handlers.model_metadata, ["GET"]),
            ("/ready", handlers.model_ready, ["GET"]),
            ("/config", handlers.model_config, ["GET"]),
            ("/stats", handlers.statistics, ["GET"]),
            ("/infer", handlers.unknown_model, ["POST"]),
        )
    ]
    return [
        *page_routes(plane, settings),
        Route("/-/healthz", handlers.healthz),
        Route("/v1/models", handlers.models),
        Route("/v1/explain", handlers.explain),
        Route("/v1/profile", handlers.profile),
        Route("/v1/scrape-targets", handlers.scrape_targets),
        *(
            Route(path.format("{name}", "{version}"), handlers.unknown_model, methods=["POST"])
            for dialect in DIALECTS
            for path in dialect.paths
        ),
        Route("/v1/models/{name}", handlers.model_ready),
        Route("/ping", handlers.ping),
        Route("/openapi.json", handlers.openapi),
        Route("/v2", handlers.server),
        Route("/v2/", handlers.server),
        Route("/v2/health/live", handlers.live),
        Route("/v2/health/ready", handlers.ready),
        Route("/v2/models", handlers.model_names),
        Route("/v2/models/stats", handlers.statistics),
        *model_routes,
        Route("/v2/repository/index", handlers.repository_index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", handlers.load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", handlers.unload, methods=["POST"]),
        *experiment_routes(plane, experiments),
    ]
