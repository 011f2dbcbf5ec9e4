"""Runs a server for a slice of a comparison: from a command, and for commits in a separate work tree."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from convoy.errors import ConfigError
from loadtest.plan import Target
from loadtest.wire import direct

STARTS_IN_S = 180.0
STOPS_IN_S = 30.0
ASK_EVERY_S = 0.1
LOG_SHOWN = 500  # bytes of a failed command's output


@contextlib.contextmanager
def running(command: str, ready_url: str, folder: Path | None = None) -> Iterator[None]:
    """Runs a command for the duration of the block, which starts when `ready_url` answers with 200.

    Raises ConfigError when the command ends first or is not ready in time.
    """
    if _answers(ready_url):
        raise ConfigError(
            f"{ready_url} already answers; stop that server first, otherwise the comparison would measure it"
        )
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=folder,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            raise ConfigError(f"cannot start {command!r}: {error}") from error
        try:
            _wait(process, command, ready_url, log)
            yield
        finally:
            _end(process)
            _wait_for_silence(ready_url)


def _wait(process: subprocess.Popen[bytes], command: str, ready_url: str, log: IO[bytes]) -> None:
    until = monotonic() + STARTS_IN_S
    while not _answers(ready_url):
        if process.poll() is not None:
            log.seek(0)
            output = log.read()[-LOG_SHOWN:].decode("utf-8", "replace").strip()
            raise ConfigError(
                f"{command!r} ended with code {process.returncode} before {ready_url} answered. {output}".strip()
            )
        if monotonic() > until:
            raise ConfigError(f"{ready_url} did not answer within {STARTS_IN_S:g} s of {command!r}")
        sleep(ASK_EVERY_S)


def _answers(url: str) -> bool:
    try:
        with direct.fetch(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _wait_for_silence(url: str) -> None:
    """Waits for child processes of the server that end a little later. Raises ConfigError if they do not."""
    until = monotonic() + STOPS_IN_S
    while _answers(url):
        if monotonic() > until:
            raise ConfigError(f"{url} still answers {STOPS_IN_S:g} s after its command was ended")
        sleep(ASK_EVERY_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminates the command, then kills what is left of its process group."""
    process.terminate()  # not its group: a server that gets SIGTERM stops its own children in order
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOPS_IN_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ready_url(target: Target) -> str:
    """The readiness URL of an Open Inference server."""
    return f"{target.url.rstrip('/')}/v2/health/ready"


@contextlib.contextmanager
def commit_folder(repository: Path, commit: str) -> Iterator[Path]:
    """A work tree of a commit, removed afterwards. Raises ConfigError if git fails."""
    with tempfile.TemporaryDirectory(prefix="loadtest-") as temporary:
        folder = Path(temporary) / "tree"
        added = _git(repository, "worktree", "add", "--detach", str(folder), commit)
        if added.returncode:
            raise ConfigError(f"git cannot check out {commit!r}: {added.stderr.strip()}")
        try:
            yield folder
        finally:
            _git(repository, "worktree", "remove", "--force", str(folder))


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
