"""An HTTP request as its connection passes it to the application: its scope and its caller."""

from __future__ import annotations

from typing import Any

from serve.gateway.request_context import RequestContext
from serve.http.body import Headers


class RequestScope(dict[str, Any]):
    """The ASGI scope of a request, with attributes that connection and application share. The connection sets both.

    `began`: time of the request's first byte, on the event loop's clock. `context`: None until the application
    replaces it, so that the connection can cancel the request when its client disconnects.
    """

    __slots__ = ("began", "context")  # and no __init__, which would cost as much as the copy of the scope
    began: float
    context: RequestContext | None


class HttpCaller:
    """The client of a request, as `serve.gateway.request_context.Caller`.

    It holds no scope: the scope refers to the context and that to its caller, and such a cycle would keep each request's
    memory until garbage collection.
    """

    __slots__ = ("_client", "_headers")

    def __init__(self, client: tuple[str, int] | None, headers: Headers) -> None:
        self._client = client
        self._headers = headers

    @property
    def address(self) -> str:
        """The client's host, empty where it is unknown."""
        return self._client[0] if self._client else ""

    def header(self, name: str) -> str | None:
        """A header's value by its name in lower case."""
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")
