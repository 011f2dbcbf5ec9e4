"""KServe's own client with Convoy, in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve.config.schema import Settings
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_kserve_client_works(server: Settings, samples: Path, protocol: str) -> None:
    listen = server.listen
    address = f"127.0.0.1:{listen.grpc_port}" if protocol == "grpc" else f"http://127.0.0.1:{listen.http_port}"
    command = [
        sys.executable,
        "-m",
        "tests.end_to_end.kserve_script",
        protocol,
        address,
        str(samples / "mnist-0-7.png"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
