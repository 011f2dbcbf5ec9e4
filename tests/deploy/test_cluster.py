"""A cluster of five machines, made of namespaces: see `tests/deploy/cluster_script.py` for what is tested in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.chaos.namespaces import isolated
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow  # five Ray nodes


def test_two_gateways_and_hosts_elsewhere() -> None:
    command = isolated(sys.executable, "-m", "tests.deploy.cluster_script")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
