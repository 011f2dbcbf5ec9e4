"""A server whose wall clock can be set, by libfaketime. The clocks of the machine and of the load generator are unaffected."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chaos.broken import HOST
from benchmarks.chaos.stage import Stage, stage
from convoy.errors import ConfigError

OFFSET = "clock"  # file with the offset of the clock in seconds
CACHE_SECONDS = 1.0  # for which a process uses an offset before it reads the file again
JUMP_SECONDS = 3600
LIBRARIES = Path("/usr/lib")


@contextmanager
def wrong_clock(folder: Path) -> Iterator[Stage]:
    """A server under libfaketime. Raises ConfigError if it is not installed."""
    library = next(LIBRARIES.glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise ConfigError("libfaketime is missing; run make test-setup")
    set_clock(folder, 0)
    fake = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(folder / OFFSET),
        "FAKETIME_CACHE_DURATION": f"{CACHE_SECONDS:g}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    os.environ.update(fake)
    with stage(folder) as server:
        for name in fake:  # processes that start from here on, such as the load generator, have the right time
            del os.environ[name]
        yield server


def set_clock(folder: Path, seconds: int) -> None:
    """Sets the offset of the clock, atomically."""
    staged = folder / f"{OFFSET}.new"
    staged.write_text(f"{seconds:+d}")
    staged.replace(folder / OFFSET)


def jump(stage: Stage) -> None:
    """Sets the clock an hour ahead for a while, and back. Then kills a host, whose loss must still be detected."""
    for seconds in (JUMP_SECONDS, 0):
        set_clock(stage.folder, seconds)
        time.sleep(10)
    lost = stage.pid(HOST)
    os.kill(lost, signal.SIGKILL)
    stage.until_replaced(HOST, lost)
