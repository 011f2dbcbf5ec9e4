"""A server whose clock can be set, by libfaketime before its processes; that of the machine, and of the load, goes on."""

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

OFFSET = "clock"  # the file that says by how many seconds the clock is wrong
NOTICED_SECONDS = 1.0  # after which every process has read it
JUMP_SECONDS = 3600
LIBRARIES = Path("/usr/lib")


@contextmanager
def wrong_clock(folder: Path) -> Iterator[Stage]:
    """Raises ConfigError without libfaketime."""
    library = next(LIBRARIES.glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise ConfigError("libfaketime is missing; run make test-setup")
    set_clock(folder, 0)
    fake = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(folder / OFFSET),
        "FAKETIME_CACHE_DURATION": f"{NOTICED_SECONDS:g}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    os.environ.update(fake)
    with stage(folder) as one:
        for name in fake:  # what is started from here on, as the load, has the right time
            del os.environ[name]
        yield one


def set_clock(folder: Path, seconds: int) -> None:
    staged = folder / f"{OFFSET}.new"
    staged.write_text(f"{seconds:+d}")
    staged.replace(folder / OFFSET)


def jump(stage: Stage) -> None:
    """An hour ahead, for a while, and back; then a host is lost, which must still be found."""
    for seconds in (JUMP_SECONDS, 0):
        set_clock(stage.folder, seconds)
        time.sleep(10)
    lost = stage.one(HOST)
    os.kill(lost, signal.SIGKILL)
    stage.until_replaced(HOST, lost)
