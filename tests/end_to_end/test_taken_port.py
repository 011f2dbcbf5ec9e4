"""The start fails with the reason if a gateway cannot open its ports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import REPOSITORY


def test_a_port_taken_after_the_check_fails_the_start(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    command = [sys.executable, "-m", "tests.end_to_end.taken_port_script", str(tmp_path), *map(str, free_ports(3))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
