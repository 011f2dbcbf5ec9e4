"""An HTTP proxy that refuses all requests and records them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
SPELLINGS = (*VARIABLES, *(name.upper() for name in VARIABLES))
EXCEPTIONS = ("no_proxy", "NO_PROXY", "no_grpc_proxy")


@dataclass
class CountingProxy:
    """The proxy's URL, and the first line of every connection to it."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def everywhere(self) -> dict[str, str]:
        """Environment variables that send all traffic through this proxy."""
        return dict.fromkeys(SPELLINGS, self.url)


@contextmanager
def counting_proxy() -> Iterator[CountingProxy]:
    """Runs a proxy until the block ends."""
    proxy = CountingProxy()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            proxy.asked.append(self.rfile.readline().decode("latin-1").strip())
            self.wfile.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def forget_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes all proxy variables from the environment."""
    for name in (*SPELLINGS, *EXCEPTIONS):
        monkeypatch.delenv(name, raising=False)
