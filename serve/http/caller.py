"""The client of an HTTP request, as `serve.gateway.request_context.Caller`."""

from __future__ import annotations

from serve.http.body import Headers, Scope


class HttpCaller:
    """Reads address and headers when an experiment or a trace asks for them: most requests need neither."""

    __slots__ = ("_headers", "_scope")

    def __init__(self, scope: Scope, headers: Headers) -> None:
        self._scope = scope
        self._headers = headers

    @property
    def address(self) -> str:
        """The client's host, empty on a Unix socket."""
        client = self._scope.get("client")
        return client[0] if client else ""

    def header(self, name: str) -> str | None:
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")
