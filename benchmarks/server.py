"""Starts `convoy up` for a measurement, and measures the CPU time and memory of all its processes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

PATIENCE_SECONDS = 180
PORTS = range(20_000, 32_000)
TICKS = os.sysconf("SC_CLK_TCK")
SCRIPTS = Path(sys.executable).parent
RUNTIME_SCRIPTS = Path(__file__).resolve().parents[1] / ".venv-serve" / "bin"


@dataclass(frozen=True)
class Server:
    """A running server."""

    pid: int
    http: str
    grpc_port: int
    ready_seconds: float

    def processes(self) -> list[int]:
        """Ids of its processes: the command, Ray and the replicas."""
        return process_tree(self.pid)

    def cpu_seconds(self) -> float:
        """CPU time that its processes have used."""
        return tree_cpu_seconds(self.pid)

    def memory_bytes(self) -> int:
        """Memory of its processes, shared pages counted once (PSS)."""
        total = 0
        for pid in self.processes():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        return total

    def gateway(self) -> int:
        """Process id of its gateway, or of the first of several."""
        return next(pid for pid in self.processes() if "ServeReplica:gateway" in _name(pid))

    def set_niceness(self, value: int) -> None:
        """Sets the niceness of every thread of the gateways and hosts."""
        replicas = [pid for pid in self.processes() if "ServeReplica:" in _name(pid)]
        for task in (task for pid in replicas for task in Path(f"/proc/{pid}/task").iterdir()):
            os.setpriority(os.PRIO_PROCESS, int(task.name), value)


def process_tree(pid: int) -> list[int]:
    """Ids of a process and of all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(entry.name))
        if stat:
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    pids, pending = [], [pid]
    while pending:
        pids.append(pending.pop())
        pending += children.get(pids[-1], [])
    return pids


def tree_cpu_seconds(pid: int) -> float:
    """CPU time that a process and its running descendants have used."""
    stats = filter(None, map(_stat, process_tree(pid)))
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / TICKS


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@contextmanager
def serving(
    folder: Path, models: Iterable[Mapping[str, Any]], *, scripts: Path = SCRIPTS, **settings: Any
) -> Iterator[Server]:
    """Runs `convoy up` of the environment in `scripts` with these models, on free ports, until the block ends."""
    http_port, grpc_port, metrics_port = free_ports(3)
    listen = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    config = folder / "convoy.yaml"
    config.write_text(yaml.safe_dump({"listen": listen, "models": [dict(model) for model in models], **settings}))
    command = [str(scripts / "convoy"), "up", "--config", str(config)]
    url = f"http://127.0.0.1:{http_port}"
    start = time.monotonic()
    with (folder / "server.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_ready(url, process, folder / "server.log")
            yield Server(process.pid, url, grpc_port, time.monotonic() - start)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def free_ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1, outside of the ranges from which the kernel and Ray assign ports at any time."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            port = random.choice(PORTS)
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            ports.append(port)
    return ports


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/v2/health/ready", timeout=1).is_success:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
