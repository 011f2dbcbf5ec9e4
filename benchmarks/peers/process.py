"""Starts a server as a process tree of its own, waits until it answers correctly, and stops all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

from benchmarks.server import process_tree

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90
STOP_SECONDS = 20


class WrongAnswer(RuntimeError):
    """A server names another class than the engine in this process."""


@dataclass(frozen=True)
class Launch:
    """How to start a server, and how to ask it for the label of the image."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    ask: Callable[[], int]


@contextmanager
def running(launch: Launch, label: int, scratch: Path) -> Iterator[int]:
    """Runs a server until the block ends; yields its process id once it answers with the label.

    Raises RuntimeError if it ends or stays silent, WrongAnswer if it names another label.
    """
    log = scratch / f"{launch.name.replace(' ', '-').replace(':', '')}.log"
    environment = os.environ | {"PYTHONPATH": str(ROOT), **launch.environment}
    with (
        log.open("w") as output,
        subprocess.Popen(launch.command, env=environment, cwd=scratch, stdout=output, stderr=output) as process,
    ):
        try:
            _wait_answer(launch, label, process, log)
            yield process.pid
        finally:
            _stop(process)


def _wait_answer(launch: Launch, label: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.HTTPError, grpc.RpcError):
            answer = launch.ask()
            if answer != label:
                raise WrongAnswer(f"{launch.name} answers {answer}, not {label}")
            return
        time.sleep(0.1)
    raise RuntimeError(f"{launch.name} did not start: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its descendants, also those that outlive it."""
    tree = process_tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in tree:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
