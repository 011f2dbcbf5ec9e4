"""Authorization over HTTP: a middleware for all paths but the hot ones, and the checks that handlers call.

Hot paths check their keys themselves (`serve/http/app.py`), since they bypass this middleware.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp

from convoy.errors import ConvoyError
from serve.auth import Access, Holder, key_in
from serve.http.body import Headers, Receive, Scope, Send
from serve.http.http1.head import join_fields
from serve.http.responses import send_error

HOLDER = "convoy.holder"  # scope key of the request's `Holder`; absent if no key is needed
OPEN = frozenset({"/", "/-/healthz", "/ping", "/v2/health/live", "/v2/health/ready"})
OPEN_FOLDERS = ("/page/", "/samples/")


def shown_key(headers: Headers) -> bytes:
    """The API key in a request's headers, empty if there is none."""
    return key_in(headers.get(b"authorization"), headers.get(b"x-api-key"))


class Guard:
    """ASGI middleware: once keys are declared, every path needs one, except health checks and the files of the web page."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers with the error of its key."""
        if self._access.open or scope["path"] in OPEN or scope["path"].startswith(OPEN_FOLDERS):
            await self._app(scope, receive, send)
            return
        try:
            holder = scope[HOLDER] = self._access.find(shown_key(join_fields(scope["headers"])))
            holder.enter()
        except ConvoyError as error:
            await send_error(send, error)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            holder.leave()


class Rights:
    """Checks the permissions of a request's key. Without declared keys only changes are restricted."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def may_call(self, request: Request, name: str) -> bool:
        """Whether the request may see and call model `name`."""
        holder: Holder | None = request.scope.get(HOLDER)
        return holder is None or holder.may_call(name)

    def check_call(self, request: Request, name: str) -> None:
        """Raises Forbidden if the key may not call model `name`."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_call(name)

    def check_feedback(self, request: Request, experiment: str) -> None:
        """Raises Forbidden if the key may not send feedback for this experiment."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_feedback(experiment)

    def check_change(self, request: Request) -> None:
        """For changes of the server. Raises Unauthenticated or Forbidden, even without declared keys: see `serve/auth.py`."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_admin()
        else:
            self._access.find_admin(shown_key(join_fields(request.scope["headers"])))

    def check_overview(self, request: Request) -> None:
        """For data about all clients' traffic. Raises Forbidden if keys are declared and this is not an admin key."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_admin()
