"""Servers of the benchmarks: started, asked, stopped with all their processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.peers.process import Launch, WrongAnswer, running
from benchmarks.server import process_tree
from tests.waiting import until

CHILD = "import time; time.sleep(600)"
FAMILY = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {CHILD!r}]); time.sleep(600)"


def launch(code: str, ask: Callable[[], int]) -> Launch:
    return Launch("family", [sys.executable, "-c", code], {}, ask)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_children_end_with_their_server(tmp_path: Path) -> None:
    def ask() -> int:
        if sum(CHILD in Path(f"/proc/{pid}/cmdline").read_text() for pid in process_tree(os.getpid())) < 2:
            raise httpx.ConnectError("the child has not started yet")
        return 7

    with running(launch(FAMILY, ask), 7, tmp_path) as pid:
        processes = process_tree(pid)
        assert len(processes) == 2
    until(lambda: not any(map(lives, processes)), patience=10)


def test_a_wrong_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongAnswer, match="family answers 3, not 7"), running(launch(CHILD, lambda: 3), 7, tmp_path):
        pass


def test_a_server_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    def ask() -> int:
        raise httpx.ConnectError("nobody listens")

    server = launch("print('no such model')", ask)
    with pytest.raises(RuntimeError, match="family did not start: no such model"), running(server, 7, tmp_path):
        pass
