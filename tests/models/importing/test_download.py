"""Verified downloads, resumed after an interruption, from a local server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from convoy.errors import ArtifactError
from models.importing.download import download

CONTENT = bytes(range(256)) * 5_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT with support for ranges, records the requested ranges, and truncates the answer after `cut` bytes if set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.cut: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/net-abcd.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        requested = self.headers["Range"]
        self.server.ranges.append(requested)
        start = int(requested.removeprefix("bytes=").removesuffix("-")) if requested else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        rest = CONTENT[start:]
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        path = download(server.url, DIGEST[:8], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cut = 300_000
    with pytest.raises(ArtifactError, match="by hand"):
        download(server.url, DIGEST[:8], tmp_path)
    server.cut = None
    received = (tmp_path / "net-abcd.pth.part").stat().st_size
    assert 0 < received <= 300_000
    assert download(server.url, DIGEST[:8], tmp_path).read_bytes() == CONTENT
    assert server.ranges[1] == f"bytes={received}-"


def test_a_complete_partial_file_is_only_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net-abcd.pth.part").write_bytes(CONTENT)
    assert download(server.url, DIGEST[:8], tmp_path).read_bytes() == CONTENT


def test_an_unexpected_file_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not the expected file"):
        download(server.url, "00000000", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_connection_the_error_names_the_manual_step(server: Server, tmp_path: Path) -> None:
    url = server.url.replace(str(server.server_port), "9")
    with pytest.raises(ArtifactError, match=f"put it into {tmp_path}"):
        download(url, DIGEST, tmp_path)
