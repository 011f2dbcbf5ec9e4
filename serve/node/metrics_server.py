"""The node's metrics over HTTP, for few clients that may not wait for one another: a thread each, for seconds."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from convoy.errors import Unauthenticated
from serve.auth import Access, key_in
from serve.config.schema import ApiKey, Listen
from serve.tls import server_context

SECONDS = 10.0  # that a client may let us wait for its next byte
MOST_SECONDS = 30.0  # of a connection: one byte at a time would hold it, and its place among CONNECTIONS, for days
CONNECTIONS = 32

log = logging.getLogger("convoy.metrics")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Beyond `CONNECTIONS` at a time, connections are closed."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def __init__(self, *arguments: Any) -> None:
        self._room = threading.Semaphore(CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """On the connection's own thread: a handshake keeps nobody else waiting."""
        request.settimeout(SECONDS)
        if self.tls is None:
            self._answer(request, client_address)
            return
        with self.tls.wrap_socket(request, server_side=True) as encrypted:
            self._answer(encrypted, client_address)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        cut = threading.Timer(MOST_SECONDS, _cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().finish_request(request, client_address)
        finally:
            cut.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a metrics connection failed", exc_info=True)


def _cut(connection: socket.socket) -> None:
    """Whoever reads from it, or writes to it, comes to an end."""
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


class SixMetricsServer(MetricsServer):
    address_family = socket.AF_INET6


class QuietHandler(WSGIRequestHandler):
    timeout = SECONDS

    def log_message(self, format: str, *arguments: Any) -> None:
        """No line per scrape."""


def listen_for_scrapes(listen: Listen, registry: CollectorRegistry, keys: Sequence[ApiKey] = ()) -> WSGIServer:
    """Answers scrapes on a thread until it is shut down; only to `keys`, where there are any. Raises ConfigError."""
    family = SixMetricsServer if ":" in listen.host else MetricsServer
    application = guarded(make_wsgi_app(registry), keys)
    server = make_server(listen.host, listen.metrics_port, application, family, QuietHandler)
    if listen.tls is not None:
        server.tls = server_context(listen.tls)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def guarded(application: Any, keys: Sequence[ApiKey]) -> Application:
    """The application, for holders of the keys alone; for everybody where there are none."""
    if not keys:
        return application  # type: ignore[no-any-return]
    access = Access(keys)

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        shown = [environment.get(name) for name in ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY")]
        try:
            access.find(key_in(*(None if one is None else one.encode("latin-1") for one in shown)))
        except Unauthenticated as error:
            start("401 Unauthorized", [("Content-Type", "text/plain"), ("WWW-Authenticate", "Bearer")])
            return [str(error).encode()]
        return application(environment, start)  # type: ignore[no-any-return]

    return answer
