"""Who may ask what over HTTP: the guard before every path that is not hot, and what its handlers ask of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp

from convoy.errors import ConvoyError
from serve.auth import Access, Holder, key_in
from serve.http.body import Headers, Receive, Scope, Send
from serve.http.responses import send_error

HOLDER = "convoy.holder"  # key of the scope
OPEN = frozenset({"/", "/-/healthz", "/ping", "/v2/health/live", "/v2/health/ready"})
OPEN_FOLDERS = ("/page/", "/samples/")


def shown_key(headers: Headers) -> bytes:
    """The key in a request's headers, empty when there is none."""
    return key_in(headers.get(b"authorization"), headers.get(b"x-api-key"))


class Guard:
    """ASGI: where keys are declared nothing is asked without one, but for health and the page's own files."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._access.open or scope["path"] in OPEN or scope["path"].startswith(OPEN_FOLDERS):
            await self._app(scope, receive, send)
            return
        try:
            holder = scope[HOLDER] = self._access.find(shown_key(dict(scope["headers"])))
            holder.enter()
        except ConvoyError as error:
            await send_error(send, receive, error)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            holder.leave()


class Rights:
    """What handlers ask about whoever sends a request."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def may_call(self, request: Request, name: str) -> bool:
        holder: Holder | None = request.scope.get(HOLDER)
        return holder is None or holder.may_call(name)

    def check_call(self, request: Request, name: str) -> None:
        """Raises Forbidden."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_call(name)

    def check_feedback(self, request: Request, experiment: str) -> None:
        """Raises Forbidden."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_feedback(experiment)

    def check_change(self, request: Request) -> None:
        """For whatever changes the server. Raises Unauthenticated or Forbidden, also where no key is declared."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_admin()
        else:
            self._access.find_admin(shown_key(dict(request.scope["headers"])))

    def check_overview(self, request: Request) -> None:
        """For what tells of everybody's traffic. Raises Forbidden, where keys are declared."""
        holder: Holder | None = request.scope.get(HOLDER)
        if holder is not None:
            holder.check_admin()
