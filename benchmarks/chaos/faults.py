"""The faults: what is done, for how long it is watched, and what is promised."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.chaos.stage import HOSTED, Stage

HOST, GATEWAY, METER = "ServeReplica:host-", "ServeReplica:gateway", "ServeReplica:meter"
STEWARD, CONTROLLER = "ServeReplica:steward", "ServeController"
IDLE_CONNECTIONS = 5000
SPARE_BYTES = 16 * 2**20  # that a host may still take before its memory ends
SMALL_FILE_BYTES = 4096


@dataclass(frozen=True)
class Fault:
    """`act` returns when what was lost is back, `seconds` are watched in any case. `most_failed` requests are promised."""

    name: str
    happens: str
    promise: str
    act: Callable[[Stage], None]
    most_failed: int = 0
    within_seconds: float = 30.0
    seconds: float = 20.0


def kill(role: str, stage: Stage) -> None:
    lost, before = stage.one(role), stage.pids(role)
    os.kill(lost, signal.SIGKILL)
    stage.until(lambda: len(stage.pids(role) - {lost}) >= len(before))


def hang(stage: Stage) -> None:
    """A host that stands still: it holds its connections and answers nothing."""
    lost, before = stage.one(HOST), stage.pids(HOST)
    os.kill(lost, signal.SIGSTOP)
    stage.until(lambda: lost not in stage.pids(HOST) and len(stage.pids(HOST)) >= len(before))


def exhaust_memory(stage: Stage) -> None:
    """A host that is given no more memory: its allocations fail from here on."""
    lost = stage.one(HOST)
    used = int(Path(f"/proc/{lost}/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.prlimit(lost, resource.RLIMIT_AS, (used + SPARE_BYTES, resource.RLIM_INFINITY))
    stage.after.callback(restore, lost, resource.RLIMIT_AS, before)
    time.sleep(10)


def fill_disk(stage: Stage) -> None:
    """Files of the gateways may not grow: logs, and whatever else they write, fail as on a full disk."""
    for pid in stage.pids(GATEWAY):
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, resource.RLIM_INFINITY))
        stage.after.callback(restore, pid, resource.RLIMIT_FSIZE, before)
    time.sleep(10)


def restore(pid: int, kind: int, before: tuple[int, int]) -> None:
    if os.path.exists(f"/proc/{pid}"):
        resource.prlimit(pid, kind, before)


def lose_database(stage: Stage) -> None:
    stage.database.stop()
    time.sleep(10)
    stage.database.start()


def crowd(stage: Stage) -> None:
    """Connections that say nothing, and some that send a byte now and then."""
    address = ("127.0.0.1", stage.settings.listen.http_port)
    held = stage.after.enter_context(ExitStack())
    slow = [held.enter_context(socket.create_connection(address)) for _ in range(100)]
    for _ in range(IDLE_CONNECTIONS):
        held.enter_context(socket.create_connection(address))
    for byte in b"POST /v1/":
        for one in slow:
            one.send(bytes([byte]))
        time.sleep(1)


def update_code(stage: Stage) -> None:
    """An argument changes, as for new code: Ray Serve replaces gateways one after the other."""
    changed = stage.settings.model_dump(mode="json")
    changed["limits"]["queue_rows"] = stage.settings.limits.queue_rows + 1
    stage.deploy(changed)


def update_catalog(stage: Stage) -> None:
    changed = stage.settings.model_dump(mode="json")
    changed["models"] = [one | {"max_batch": one["max_batch"] // 2} for one in changed["models"]]
    stage.deploy(changed)


FAULTS = (
    Fault(
        "host",
        "kill -9 of one of two engine hosts",
        "no request fails; its batches run again on the other",
        partial(kill, HOST),
    ),
    Fault(
        "gateway",
        "kill -9 of one of two gateways",
        "only what is in flight on its connections fails, at once; a new connection is answered by the other",
        partial(kill, GATEWAY),
        most_failed=64,
    ),
    Fault(
        "controller",
        "kill -9 of the Serve controller",
        "no request fails; nothing is placed or healed meanwhile",
        partial(kill, CONTROLLER),
    ),
    Fault("steward", "kill -9 of the steward", "no request fails; loads and unloads wait", partial(kill, STEWARD)),
    Fault(
        "meter",
        "kill -9 of the meter",
        "no request fails; gateways hold the socket, metrics are away meanwhile",
        partial(kill, METER),
    ),
    Fault(
        "hang",
        "SIGSTOP of one of two engine hosts",
        "no request fails; what waits there is asked again elsewhere after 5 s, and the host is replaced within two minutes",
        hang,
        within_seconds=120,
        seconds=40,
    ),
    Fault(
        "memory",
        "one of two engine hosts gets no more memory",
        "batches that it cannot run fail at once with 500; the server stays up",
        exhaust_memory,
        most_failed=2000,
        within_seconds=60,
    ),
    Fault("disk", "the gateways' files cannot grow", "no request fails; log lines are lost", fill_disk),
    Fault(
        "database",
        "the ledger's PostgreSQL is lost for 10 s",
        "no request fails, an experiment's neither; its events wait in memory",
        lose_database,
    ),
    Fault(
        "crowd",
        f"{IDLE_CONNECTIONS:,} idle connections, and 100 that send a byte a second",
        "no request fails; they are closed in time",
        crowd,
    ),
    Fault("code", "a rolling update of the gateways", "no request fails", update_code, seconds=40, within_seconds=60),
    Fault(
        "catalog",
        f"a new catalog, with {HOSTED} replaced",
        "no request fails",
        update_catalog,
        seconds=40,
        within_seconds=60,
    ),
)
