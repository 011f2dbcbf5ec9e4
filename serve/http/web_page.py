"""The page at `/` and what it alone asks for. The page loads nothing from outside, and its policy forbids it to."""

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
PLOT_STYLE = (
    "sha256-+TfQir1nvDucAdvE6XUQBt4ayUjpAWkbw2kCdSfekHM="  # the style element that Observable Plot puts into its charts
)
HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' '{PLOT_STYLE}'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class WebPage:
    """Handlers of the page's own paths."""

    def __init__(self, plane: DataPlane, settings: Settings) -> None:
        self._plane = plane
        self._settings = settings
        self._rights = Rights(plane.access)

    async def home(self, request: Request) -> Response:
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html", headers=HEADERS)

    async def vitals(self, request: Request) -> Response:
        self._rights.check_overview(request)
        folder = self._settings.node_dir / "metrics"
        names = sorted(one.name for one in self._plane.endpoints.by_name.values() if one.form == "image")
        return answer(await asyncio.to_thread(live_stats, folder, names))

    async def atlas(self, request: Request) -> Response:
        path = self._settings.atlas_path
        if not path.exists():
            raise NotFound(f"nothing was measured on this machine yet: no {path}; run: convoy atlas")
        return answer(await asyncio.to_thread(lambda: document(load_atlas(path))))


def page_routes(plane: DataPlane, settings: Settings) -> list[BaseRoute]:
    routes = WebPage(plane, settings)
    return [
        Route("/", routes.home),
        Route("/v1/vitals", routes.vitals),
        Route("/v1/atlas", routes.atlas),
        Mount("/page", StaticFiles(directory=PAGE)),
        Mount("/samples", StaticFiles(directory=SAMPLES)),
    ]
