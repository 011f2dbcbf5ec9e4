"""The faults: what happens, for how long the load is observed, and what is promised."""

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
    """`act` injects the fault and returns after recovery. The load runs for at least `seconds` after the injection.

    The promise holds if at most `most_failed` requests fail and no request is disturbed after `within_seconds`. `prepare` runs
    before the load, `check` after it.
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
    """Kills a process of a role, and waits until it is replaced."""
    lost = stage.pid(role)
    os.kill(lost, signal.SIGKILL)
    stage.until_replaced(role, lost)


def hang(stage: Stage) -> None:
    """Stops a host: it keeps its connections open and does not answer."""
    lost = stage.pid(HOST)
    os.kill(lost, signal.SIGSTOP)
    stage.until_replaced(HOST, lost)


def fill_disk(stage: Stage) -> None:
    """Prevents the files of the gateways from growing: their writes (logs and others) fail as on a full disk."""
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
    """Opens idle connections, and some that send a byte per second."""
    address = ("127.0.0.1", stage.settings.listen.http_port)
    held = stage.after.enter_context(ExitStack())
    slow = [held.enter_context(socket.create_connection(address)) for _ in range(100)]
    for _ in range(IDLE_CONNECTIONS):
        held.enter_context(socket.create_connection(address))
    for byte in b"POST /v1/":
        for connection in slow:
            connection.send(bytes([byte]))
        time.sleep(1)


def update_code(stage: Stage) -> None:
    """Changes an argument of the gateways: Ray Serve then replaces them one after the other, as for new code."""
    changed = stage.settings.model_dump(mode="json")
    changed["limits"]["queue_rows"] = stage.settings.limits.queue_rows + 1
    stage.deploy(changed)


def update_catalog(stage: Stage) -> None:
    changed = stage.settings.model_dump(mode="json")
    changed["models"] = [model | {"max_batch": model["max_batch"] // 2} for model in changed["models"]]
    stage.deploy(changed)


FAULTS = (
    Fault(
        "host",
        "kill -9 of one of two engine hosts",
        "no request fails; its batches run again on the other host",
        partial(kill, HOST),
    ),
    Fault(
        "gateway",
        "kill -9 of one of two gateways",
        "only requests in flight on its connections fail, at once; the other gateway accepts new connections",
        partial(kill, GATEWAY),
        most_failed=64,
    ),
    Fault(
        "controller",
        "kill -9 of the Serve controller",
        "no request fails; meanwhile no replica is placed or replaced",
        partial(kill, CONTROLLER),
    ),
    Fault(
        "steward",
        "kill -9 of the coordinator (`steward`)",
        "no request fails; loads and unloads wait",
        partial(kill, STEWARD),
    ),
    Fault(
        "meter",
        "kill -9 of the node agent (`meter`)",
        "no request fails; gateways keep the listening socket, metrics are unavailable meanwhile",
        partial(kill, METER),
    ),
    Fault(
        "hang",
        "SIGSTOP of one of two engine hosts",
        "no request fails; its batches run again on the other host after 5 s, and it is replaced within two minutes",
        hang,
        within_seconds=120,
        seconds=40,
    ),
    Fault(
        "shapes",
        "one of two engine hosts answers with one row too few",
        "no request fails; its batches run again on the other host, and it is replaced within a minute",
        lose_rows,
        within_seconds=60,
        prepare=make_breakable,
    ),
    Fault(
        "memory",
        "one of two engine hosts allocates memory up to its limit",
        "no request fails; its batches run again on the other host, and it is replaced within a minute",
        exhaust_memory,
        within_seconds=60,
        prepare=make_breakable,
    ),
    Fault(
        "disk", "the files of the gateways cannot grow (full disk)", "no request fails; log lines are lost", fill_disk
    ),
    Fault(
        "database",
        "the ledger's PostgreSQL is down for 10 s",
        "no request fails, including those of experiments; their events wait in memory, and all are recorded",
        lose_database,
        prepare=account.note,
        check=account.check,
    ),
    Fault(
        "crowd",
        f"{IDLE_CONNECTIONS:,} idle connections, and 100 that send a byte per second",
        "no request fails; the connections are closed by their timeouts",
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
        "kill -9 of the raylet of one of two engine hosts, each on its own machine",
        "no request fails; its batches run again on the other host",
        lose_raylet,
        within_seconds=60,
        seconds=40,
        where="machines",
    ),
    Fault(
        "node",
        "loss of one of two machines with an engine host",
        "no request fails; its batches run again on the other host after 5 s, until Ray detects the loss within a minute",
        lose_machine,
        within_seconds=60,
        seconds=60,
        where="machines",
    ),
)
