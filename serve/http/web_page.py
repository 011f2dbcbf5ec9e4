"""The web page at `/` and its own paths. Its content security policy forbids it to load anything from other hosts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from convoy.errors import NotFound
from models.artifact import BUNDLED
from serve.api.live_stats import live_stats
from serve.atlas.data import load_atlas
from serve.atlas.view import document
from serve.config.schema import Settings
from serve.gateway.dataplane import DataPlane
from serve.http.auth import Rights
from serve.http.responses import answer

PAGE = Path(__file__).parent / "page"
SAMPLES = BUNDLED / "samples"
# Of the style element that Observable Plot inserts into its charts.
PLOT_STYLE = "sha256-+TfQir1nvDucAdvE6XUQBt4ayUjpAWkbw2kCdSfekHM="
HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' '{PLOT_STYLE}'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class WebPage:
    """Handlers of the paths that only the web page uses."""

    def __init__(self, plane: DataPlane, settings: Settings) -> None:
        self._plane = plane
        self._settings = settings
        self._rights = Rights(plane.access)

    async def home(self, request: Request) -> Response:
        """The page itself."""
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html", headers=HEADERS)

    async def vitals(self, request: Request) -> Response:
        """Live figures of the models of this node."""
        self._rights.check_overview(request)
        folder = self._settings.node_dir / "metrics"
        endpoints = self._plane.endpoints.by_name.values()
        names = sorted(endpoint.name for endpoint in endpoints if endpoint.form == "image")
        return answer(await asyncio.to_thread(live_stats, folder, names))

    async def atlas(self, request: Request) -> Response:
        """The atlas of this machine. Raises NotFound if none was measured."""
        path = self._settings.atlas_path
        if not path.exists():
            raise NotFound(f"no atlas was measured on this machine ({path} does not exist); run: convoy atlas")
        return answer(await asyncio.to_thread(lambda: document(load_atlas(path))))


def page_routes(plane: DataPlane, settings: Settings) -> list[BaseRoute]:
    """The routes of the web page, its files and the sample images."""
    handlers = WebPage(plane, settings)
    return [
        Route("/", handlers.home),
        Route("/v1/vitals", handlers.vitals),
        Route("/v1/atlas", handlers.atlas),
        Mount("/page", StaticFiles(directory=PAGE)),
        Mount("/samples", StaticFiles(directory=SAMPLES)),
    ]
