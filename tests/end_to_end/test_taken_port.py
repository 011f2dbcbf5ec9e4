"""A gateway that cannot open its ports does not count as started, and the start says why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import REPOSITORY


def test_a_port_that_is_taken_after_the_check_ends_the_start(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    command = [sys.executable, "-m", "tests.end_to_end.taken_port_script", str(tmp_path), *map(str, free_ports(3))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
