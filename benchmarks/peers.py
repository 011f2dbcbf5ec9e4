"""Runs the limit, Convoy and its peers side by side with external compare scripts; without them, only the limit and Convoy."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import wrk
from benchmarks.nets import Net, tensor_body

LIMIT_PORT = 18290
COMPARE = re.compile(r"^(\S+) connections=(\d+) rps=([\d.]+) p50=([\d.]+) p99=([\d.]+) non2xx=(\d+) errs=(\d+)", re.M)
COMPARE_GRPC = re.compile(
    r"^(\S+) (image|tensor) in-flight=(\d+) rps=([\d.]+) \d+ succeeded, (\d+) failed, (\d+) err", re.M
)


@dataclass(frozen=True)
class Result:
    """A contender at one load. Quantiles are None if the client reports none."""

    name: str
    connections: int
    rps: float
    p50_ms: float | None
    p99_ms: float | None
    failed: int


@dataclass(frozen=True)
class Bench:
    """The folder of the compare scripts, and the folder in which their setup.sh installed the peers."""

    scripts: Path
    home: Path

    def compare(
        self, net: Net, ours: Mapping[str, str], connections: int, seconds: int, tensor: bool, peers: str
    ) -> list[Result]:
        """Measures over HTTP. `ours` maps names to URLs; `peers` names the other servers to run, separated by blanks."""
        chosen = {"BENCH_PEERS": peers} if peers else {"BENCH_NO_PEERS": "1"}
        load = (str(connections), str(seconds))
        command: list[str | Path] = [self.scripts / "compare.sh", net.onnx, net.image, *load, *ours.values()]
        text = self._run(command, net, chosen | ({"BENCH_TENSOR": "1"} if tensor else {}))
        names = {url: name for name, url in ours.items()}
        return [
            Result(names.get(name, name), int(at), float(rps), float(p50), float(p99), int(status) + int(errors))
            for name, at, rps, p50, p99, status, errors in COMPARE.findall(text)
        ]

    def compare_grpc(self, net: Net, ours: Sequence[str], requests: int) -> list[Result]:
        """Measures over gRPC. `ours` are PORT:MODEL:image or PORT:MODEL:tensor."""
        command: list[str | Path] = [self.scripts / "compare_grpc.sh", net.onnx, net.image, str(requests), *ours]
        text = self._run(command, net, {})
        return [
            Result(f"{name} {kind}", int(at), float(rps), None, None, int(failed) + int(errored))
            for name, kind, at, rps, failed, errored in COMPARE_GRPC.findall(text)
        ]

    def _run(self, command: Sequence[str | Path], net: Net, extra: Mapping[str, str]) -> str:
        environment = os.environ | {"BENCH_HOME": str(self.home), **extra} | ({"BENCH_GRAY": "1"} if net.gray else {})
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        # The script's exit status is that of the peer that it stopped last, so it says nothing.
        if not done.stdout.strip():
            raise RuntimeError(f"{command[0]} measured nothing: {done.stderr[-2000:]}")
        return done.stdout


def alone(
    net: Net, ours: Mapping[str, str], connections: int, seconds: int, tensor: bool, scratch: Path
) -> list[Result]:
    """Measures the limit and Convoy without the compare scripts."""
    body, headers = net.image, {"Content-Type": "image/png"}
    if tensor:
        body = scratch / "tensor.bin"
        length = tensor_body((1, 1, 28, 28) if net.gray else (1, 3, 224, 224), body)
        headers = {"Inference-Header-Content-Length": str(length)}
    results = []
    with limit(net) as url:
        for name, target in {"limit": url, **ours}.items():
            for count in (connections, 1):
                load = wrk(target, body, count, seconds, headers)
                results.append(Result(name, count, load.rps, load.p50_ms, load.p99_ms, load.failed))
    return results


@contextmanager
def limit(net: Net) -> Iterator[str]:
    """Starts the limit as a separate server. Yields its URL."""
    environment = os.environ | {"BENCH_MODEL": str(net.onnx), "BENCH_GRAY": "1" if net.gray else "0"}
    options = ["--port", str(LIMIT_PORT), "--no-access-log", "--log-level", "error", "--lifespan", "off"]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "benchmarks.limit:app",
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        *options,
    ]
    with subprocess.Popen(command, env=environment) as process:
        try:
            _wait_open(LIMIT_PORT)
            yield f"http://127.0.0.1:{LIMIT_PORT}/"
        finally:
            process.terminate()


def _wait_open(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no server listens on port {port}")
