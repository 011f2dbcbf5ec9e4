"""A cluster of five machines, simulated by namespaces; `tests/deploy/cluster_script.py` contains the checks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.chaos.namespaces import isolated
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow  # five Ray nodes


def test_gateways_and_hosts_on_separate_machines_serve_and_survive_a_loss() -> None:
    command = isolated(sys.executable, "-m", "tests.deploy.cluster_script")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
