"""Every `python -m models…` command of README, Makefile and CONTRIBUTING has a working `--help`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

COMMANDS = (
    "models.calibrate",
    "models.compile",
    "models.engines",
    "models.readme",
    "models.samples",
    "models.train",
    "models.zoo",
    "models.zoo.parity",
)
# Runs all commands in one process, as `python -m` would: importing torch takes most of the time.
RUN = """
import contextlib, io, json, runpy, sys
helps = {}
for name in sys.argv[1:]:
    sys.argv, text = [name, "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        helps[name] = text.getvalue() if end.code == 0 else f"exit status {end.code}"
print(json.dumps(helps))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", RUN, *COMMANDS], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_has_a_usage_message(helps: dict[str, str], command: str) -> None:
    assert f"usage: python -m {command} " in helps[command]
