"""Unmodified tritonclients with Convoy, each in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve.auth import read_local_key
from serve.config.schema import Settings
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("client", ["http", "http.aio", "grpc", "grpc.aio"])
def test_every_tritonclient_works(server: Settings, samples: Path, client: str) -> None:
    port = server.listen.grpc_port if client.startswith("grpc") else server.listen.http_port
    image = str(samples / "mnist-0-7.png")
    key = read_local_key(server.node_dir)
    command = [sys.executable, "-m", "tests.end_to_end.triton_script", client, f"127.0.0.1:{port}", image, key]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
