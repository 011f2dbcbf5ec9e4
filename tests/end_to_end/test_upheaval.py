"""Gateways and meters that drain, are replaced or are killed under load. The node's listening socket outlives them all."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.sockets import KEEPER
from tests.end_to_end.hammer import LOST, REFUSED, calling, hammering

pytestmark = pytest.mark.slow

MODEL = "lenet5-mnist"
CONNECTIONS = 16
REQUESTS = 50_000  # of a change that may lose none
PATIENCE_SECONDS = 120


@dataclass
class Node:
    """A server in a process of its own, and ways to change and hurt it."""

    process: subprocess.Popen[str]
    settings: dict[str, Any]

    @property
    def port(self) -> int:
        return int(self.settings["listen"]["http_port"])

    @property
    def grpc_port(self) -> int:
        return int(self.settings["listen"]["grpc_port"])

    @property
    def folder(self) -> Path:
        return Path(self.settings["runtime_dir"])

    def say(self, word: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line == word, line

    def deploy(self, gateways: int) -> None:
        """Replaces every gateway by a new one, and their number by `gateways`; returns when the new ones serve."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self.settings | {"gateways": gateways}) + "\n")
        self.process.stdin.flush()
        self.say("done")

    def gateways(self) -> set[int]:
        """Process ids of the gateways that live, from the doors at which they hand on the socket."""
        pids = {int(door.stem.partition("-")[2]) for door in self.folder.glob("gateway-*.sock")}
        return {pid for pid in pids if Path(f"/proc/{pid}").exists()}

    def meter(self) -> int | None:
        """Process id of the meter, from the door at which it hands out the socket."""
        with socket.socket(socket.AF_UNIX) as door:
            try:
                door.connect(str(self.folder / KEEPER))
            except OSError:
                return None
            pid, _, _ = struct.unpack("3i", door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "patience ended"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Node]:
    http_port, grpc_port, metrics_port = free_ports(3)
    settings = {
        "listen": {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port},
        "runtime_dir": str(tmp_path_factory.mktemp("upheaval") / "node"),
        "models": [{"name": MODEL}],
        "gateways": 2,
    }
    command = [sys.executable, "-m", "tests.end_to_end.changing_server", json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        node = Node(process, settings)
        node.say("ready")
        yield node
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def digit(samples: Path) -> bytes:
    return (samples / "mnist-0-7.png").read_bytes()


@pytest.mark.parametrize("keep_alive", [True, False])
def test_gateways_are_replaced_and_scaled_down_without_a_failure(node: Node, digit: bytes, keep_alive: bool) -> None:
    node.deploy(2)
    eventually(lambda: len(node.gateways()) == 2)
    before = node.gateways()
    with hammering(node.port, MODEL, digit, CONNECTIONS, keep_alive) as outcomes:
        outcomes.wait_for(200, 500)
        node.deploy(1)
        eventually(lambda: not before & node.gateways())
        outcomes.wait_for(200, REQUESTS)
    assert len(node.gateways()) == 1
    assert set(outcomes.counts) == {200}


def test_grpc_clients_that_follow_goaway_meet_no_failure(node: Node, digit: bytes) -> None:
    node.deploy(2)
    eventually(lambda: len(node.gateways()) == 2)
    before = node.gateways()
    with calling(node.grpc_port, MODEL, digit, 8) as outcomes:
        outcomes.wait_for("OK", 200)
        node.deploy(2)
        eventually(lambda: not before & node.gateways())
        outcomes.wait_for("OK", 200)
    assert set(outcomes.counts) == {"OK"}


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_killed_only_gateway_fails_what_is_in_flight_and_refuses_nobody(
    node: Node, digit: bytes, keep_alive: bool
) -> None:
    node.deploy(1)
    eventually(lambda: len(node.gateways()) == 1)
    (victim,) = node.gateways()
    with hammering(node.port, MODEL, digit, CONNECTIONS, keep_alive) as outcomes:
        outcomes.wait_for(200, 500)
        os.kill(victim, signal.SIGKILL)
        outcomes.wait_for(LOST, 1)
        outcomes.wait_for(200, 500)
    assert outcomes.counts[REFUSED] == 0
    assert outcomes.counts[LOST] <= CONNECTIONS
    assert set(outcomes.counts) == {200, LOST}


def test_a_killed_meter_fails_nothing_and_the_next_gateway_gets_the_socket(node: Node, digit: bytes) -> None:
    node.deploy(1)
    eventually(lambda: len(node.gateways()) == 1)
    meter = node.meter()
    assert meter is not None
    with hammering(node.port, MODEL, digit, CONNECTIONS, keep_alive=False) as outcomes:
        outcomes.wait_for(200, 500)
        os.kill(meter, signal.SIGKILL)
        eventually(lambda: node.meter() not in (None, meter))
        outcomes.wait_for(200, 500)
        before = node.gateways()
        node.deploy(1)
        eventually(lambda: not before & node.gateways())
        outcomes.wait_for(200, 500)
    assert set(outcomes.counts) == {200}
    url = f"http://127.0.0.1:{node.settings['listen']['metrics_port']}/metrics"
    eventually(lambda: answers(url))


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
