"""`convoy demo` in a folder whose files have the names of modules that the server imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.strangers import stranger

NAMES = ("models", "serve", "convoy", "ray", "numpy", "http", "logging")
CONVOY = Path(sys.executable).with_name("convoy")
SHADOW = """
from pathlib import Path
Path(__file__).with_suffix(".imported").touch()
raise ImportError(__file__)
"""


@pytest.mark.slow  # starts its own server
def test_no_process_imports_files_of_the_users_folder(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(SHADOW)
    options = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]
    with stranger() as user:
        done = subprocess.run(
            [CONVOY, "demo", *options],
            cwd=tmp_path,
            env=user.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert list(tmp_path.glob("*.imported")) == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped cleanly" in done.stdout
