"""The faults: the action, the time of observation, and the guarantee."""

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
from typing import Literal

from benchmarks.chaos import account
from benchmarks.chaos.broken import HOST, exhaust_memory, lose_rows, make_breakable
from benchmarks.chaos.clock import jump
from benchmarks.chaos.machines import lose_machine, lose_raylet
from benchmarks.chaos.stage import HOSTED, Stage

GATEWAY, METER = "ServeReplica:gateway", "ServeReplica:meter"
STEWARD, CONTROLLER = "ServeReplica:steward", "ServeController"
IDLE_CONNECTIONS = 5000
SMALL_FILE_BYTES = 4096


Where = Literal["machine", "machines", "wrong clock"]


@dataclass(frozen=True)
class Fault:
    """`act` returns when what was lost is back, `seconds` are watched in any case. `most_failed` requests are promised.

    `prepare` comes before the load, `check` after it.
    """

    name: str
    happens: str
    promise: str
    act: Callable[[Stage], None]
    most_failed: int = 0
    within_seconds: float = 30.0
    seconds: float = 20.0
    where: Where = "machine"
    prepare: Callable[[Stage], None] = lambda stage: None
    check: Callable[[Stage], None] = lambda stage: None


def kill(role: str, stage: Stage) -> None:
    lost = stage.one(role)
    os.kill(lost, signal.SIGKILL)
    stage.until_replaced(role, lost)


def hang(stage: Stage) -> None:
    """A host that stands still: it holds its connections and answers nothing."""
    lost = stage.one(HOST)
    os.kill(lost, signal.SIGSTOP)
    stage.until_replaced(HOST, lost)


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
    assert stage.database is not None
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
        "shapes",
        "one of two engine hosts answers with a row too few",
        "no request fails; its batches run again on the other, and it is replaced within a minute",
        lose_rows,
        within_seconds=60,
        prepare=make_breakable,
    ),
    Fault(
        "memory",
        "one of two engine hosts takes all the memory that it may have",
        "no request fails; its batches run again on the other, and it is replaced within a minute",
        exhaust_memory,
        within_seconds=60,
        prepare=make_breakable,
    ),
    Fault("disk", "the gateways' files cannot grow", "no request fails; log lines are lost", fill_disk),
    Fault(
        "database",
        "the ledger's PostgreSQL is lost for 10 s",
        "no request fails, an experiment's neither; its events wait in memory, and all of them are recorded",
        lose_database,
        prepare=account.note,
        check=account.check,
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
    Fault(
        "clock",
        "the clock jumps an hour ahead and back; then kill -9 of one of two engine hosts",
        "no request fails; the host is replaced",
        jump,
        seconds=30,
        where="wrong clock",
    ),
    Fault(
        "raylet",
        "kill -9 of the raylet under one of two engine hosts, each on a machine of its own",
        "no request fails; its batches run again on the other",
        lose_raylet,
        within_seconds=60,
        seconds=40,
        where="machines",
    ),
    Fault(
        "node",
        "the loss of one of two machines with an engine host",
        "no request fails; what waits there is asked again elsewhere after 5 s, until Ray finds the loss within a minute",
        lose_machine,
        within_seconds=60,
        seconds=60,
        where="machines",
    ),
)
