"""Everything over HTTP that is not hot: health, metadata, the plan, the page; errors of unknown paths and methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from convoy import metadata
from convoy.errors import ConvoyError, NotFound, NotReady
from serve import describe
from serve.config import BUNDLED, Settings
from serve.dataplane import DataPlane
from serve.explain import explain

PAGE = Path(__file__).parent / "page"
SAMPLES = BUNDLED / "samples"


class Pages:
    """Handlers of the cold routes. A model's name may be percent-encoded; a version is digits."""

    def __init__(self, plane: DataPlane, settings: Settings) -> None:
        self._plane = plane
        self._settings = settings

    async def home(self, request: Request) -> Response:
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html")

    async def healthz(self, request: Request) -> Response:
        """KubeRay's probe."""
        return Response("draining" if self._plane.draining else "success", 503 if self._plane.draining else 200)

    async def live(self, request: Request) -> Response:
        return answer(metadata.live(True))

    async def ready(self, request: Request) -> Response:
        if self._plane.draining:
            return answer(metadata.ready(False, "the server is draining"), 503)
        return answer(metadata.ready(True))

    async def server(self, request: Request) -> Response:
        return answer(describe.server())

    async def models(self, request: Request) -> Response:
        return answer(
            {"models": [describe.model(one) for one in self._plane.endpoints.by_name.values() if one.form == "image"]}
        )

    async def model_names(self, request: Request) -> Response:
        return answer({"models": sorted(self._plane.endpoints.by_name)})

    async def model_ready(self, request: Request) -> Response:
        endpoint = self._find(request)
        return answer(metadata.model_ready(endpoint.name, True))

    async def model_metadata(self, request: Request) -> Response:
        return answer(metadata.model_metadata(describe.info(self._find(request))))

    async def model_config(self, request: Request) -> Response:
        return answer(metadata.model_config(describe.info(self._find(request))))

    async def explain(self, request: Request) -> Response:
        return answer(explain(self._plane, self._settings))

    async def unknown_model(self, request: Request) -> Response:
        """Hot paths of known models never come here."""
        endpoint = self._find(request)
        raise NotFound(f"model {endpoint.name!r} has no such method")

    def _find(self, request: Request) -> Any:
        if not self._plane.endpoints.by_name:
            raise NotReady("no model is loaded yet")
        return self._plane.endpoints.find(request.path_params["name"], request.path_params.get("version", ""))


def answer(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


async def convoy_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ConvoyError):
        raise error
    return answer({"error": str(error)}, error.http_status)


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


def build_pages(plane: DataPlane, settings: Settings) -> Starlette:
    """The Starlette application of the cold routes."""
    pages = Pages(plane, settings)
    of_model = [
        Route(f"/v2/models/{{name}}{version}{tail}", handler, methods=methods)
        for version in ("", "/versions/{version}")
        for tail, handler, methods in (
            ("", pages.model_metadata, ["GET"]),
            ("/ready", pages.model_ready, ["GET"]),
            ("/config", pages.model_config, ["GET"]),
            ("/infer", pages.unknown_model, ["POST"]),
        )
    ]
    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/-/healthz", pages.healthz),
            Route("/v1/models", pages.models),
            Route("/v1/explain", pages.explain),
            Route("/v1/models/{name}/classify", pages.unknown_model, methods=["POST"]),
            Route("/v1/models/{name}/versions/{version}/classify", pages.unknown_model, methods=["POST"]),
            Route("/v2", pages.server),
            Route("/v2/", pages.server),
            Route("/v2/health/live", pages.live),
            Route("/v2/health/ready", pages.ready),
            Route("/v2/models", pages.model_names),
            *of_model,
            Mount("/page", StaticFiles(directory=PAGE)),
            Mount("/samples", StaticFiles(directory=SAMPLES)),
        ],
        exception_handlers={ConvoyError: convoy_error, HTTPException: http_error},
    )
