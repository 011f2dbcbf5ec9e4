"""One echo server for all tests of the package, on real sockets and free ports."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Echo:
    """The URLs of the echo server."""

    http: str
    grpc: str

    def counts(self) -> dict[str, int]:
        """Requests that the server has received, by model."""
        with urllib.request.urlopen(f"{self.http}/counts") as answer:
            return dict(json.loads(answer.read()))


@pytest.fixture(scope="session")
def echo() -> Iterator[Echo]:
    command = [sys.executable, "-m", "tests.loadtest.echo_main"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    ports = process.stdout.readline().split()
    assert len(ports) == 2, "the echo server did not start"
    yield Echo(f"http://127.0.0.1:{ports[0]}", f"grpc://127.0.0.1:{ports[1]}")
    process.communicate()
