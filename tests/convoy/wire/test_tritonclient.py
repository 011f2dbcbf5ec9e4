"""An unmodified tritonclient with Convoy's parsers and renderers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.convoy.identity_server import running


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_receives_the_tensors_that_it_sent(protocol: str) -> None:
    with running() as server:
        address = {"http": server.http, "grpc": server.grpc}[protocol].partition("://")[2]
        command = [sys.executable, "-m", "tests.convoy.wire.triton_script", protocol, address]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
