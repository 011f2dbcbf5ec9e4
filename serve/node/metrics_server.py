"""Serves the node's metrics over HTTP: one thread per connection, so that a slow client delays no other client.

Connections are few and short, so their number and duration are limited.
"""

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

SECONDS = 10.0  # longest wait for the next byte of a client
# Longest duration of a connection: otherwise a client that sends byte by byte would occupy one of CONNECTIONS for days.
MAX_SECONDS = 30.0
CONNECTIONS = 32

log = logging.getLogger("convoy.metrics")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MetricsServer(ThreadingMixIn, WSGIServer):
    """A threading HTTP server. Closes connections beyond CONNECTIONS."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.Semaphore(CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Called on the connection's thread, so that a slow TLS handshake delays no other connection."""
        request.settimeout(SECONDS)
        if self.tls is None:
            self._answer(request, client_address)
            return
        with self.tls.wrap_socket(request, server_side=True) as encrypted:
            self._answer(encrypted, client_address)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        timer = threading.Timer(MAX_SECONDS, _shut_down, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().finish_request(request, client_address)
        finally:
            timer.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a metrics connection failed", exc_info=True)


def _shut_down(connection: socket.socket) -> None:
    """Ends blocked reads and writes of the connection."""
    with contextlib.suppress(OSError):  # already closed
        connection.shutdown(socket.SHUT_RDWR)


class Ipv6MetricsServer(MetricsServer):
    """The server on an IPv6 address."""

    address_family = socket.AF_INET6


class QuietHandler(WSGIRequestHandler):
    """Handles a request without logging it."""

    timeout = SECONDS

    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs nothing: the default writes a line per scrape to stderr."""


def listen_for_scrapes(listen: Listen, registry: CollectorRegistry, keys: Sequence[ApiKey] = ()) -> WSGIServer:
    """Serves the metrics on a thread until the server is shut down. With `keys`, a request needs one of them.

    Raises ConfigError when the TLS files cannot be used, and OSError when the port is taken.
    """
    family = Ipv6MetricsServer if ":" in listen.host else MetricsServer
    application = guarded(make_wsgi_app(registry), keys)
    server = make_server(listen.host, listen.metrics_port, application, family, QuietHandler)
    if listen.tls is not None:
        server.tls = server_context(listen.tls)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def guarded(application: Any, keys: Sequence[ApiKey]) -> Application:
    """Wraps the application with a check of API keys; without `keys`, returns it unchanged."""
    if not keys:
        return application  # type: ignore[no-any-return]
    access = Access(keys)

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        headers = [environment.get(name) for name in ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY")]
        try:
            access.find(key_in(*(None if value is None else value.encode("latin-1") for value in headers)))
        except Unauthenticated as error:
            start("401 Unauthorized", [("Content-Type", "text/plain"), ("WWW-Authenticate", "Bearer")])
            return [str(error).encode()]
        return application(environment, start)  # type: ignore[no-any-return]

    return answer
