"""The limits and the peers as contenders: how each is started, and what it is asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from benchmarks.nets import Net
from benchmarks.peers import requests, triton_server
from benchmarks.peers.process import Launch, running
from benchmarks.peers.requests import Payload
from benchmarks.peers.settings import BENTOML, GRANIAN, LITSERVE, RAY_DEFAULT, RAY_TUNED, TRITON, Tuning, environment
from benchmarks.server import free_ports
from benchmarks.turns import LIMIT, RAW, Contender, Target, over_grpc, over_http

CLASSIFY = "/classify"
INFER = "inference.GRPCInferenceService/ModelInfer"
GRPC_LIMITS = {"native": "limit: pygrpc-native", "aio": "limit: grpc.aio"}


def installed(home: Path, environment: str) -> bool:
    """Whether `python -m benchmarks.peers.install` made an environment."""
    return (home / environment / "bin" / "python").exists()


@dataclass(frozen=True)
class Work:
    """The network to serve, the folder of the peers' environments, and a scratch folder."""

    net: Net
    home: Path
    scratch: Path

    @cached_property
    def label(self) -> int:
        """The right answer."""
        return requests.expected_label(self.net)

    def bench(self, threads: int) -> dict[str, str]:
        """The variables that benchmarks/plain_engine.py reads."""
        gray = "1" if self.net.gray else "0"
        return {"BENCH_MODEL": str(self.net.onnx), "BENCH_GRAY": gray, "BENCH_THREADS": str(threads)}


@dataclass(frozen=True)
class Peer:
    """A peer's environment, settings, and the command that starts it on a port."""

    environment: str
    tuning: Tuning
    command: Callable[[Path, int], Sequence[str | Path]]

    def contender(self, work: Work) -> Contender:
        """The peer, asked for the class of the encoded image."""
        return partial(self._run, work)

    @contextmanager
    def _run(self, work: Work) -> Iterator[Sequence[Target]]:
        (port,) = free_ports(1)
        options = {place: self.tuning.options(place) for place in self.tuning.places}
        variables = environment(options.pop("environment", {})) | {"BENCH_SETTINGS": json.dumps(options)}
        variables |= work.bench(int(options["engine"]["intra_op_num_threads"]))
        if self.tuning is RAY_TUNED:
            variables |= _haproxy_files(work.scratch)
        command = self.command(work.home / self.environment / "bin", port)
        yield from _served(
            work, self.tuning.row, command, variables, f"http://127.0.0.1:{port}{CLASSIFY}", requests.image(work.net)
        )


def _python(module: str) -> Callable[[Path, int], Sequence[str | Path]]:
    return lambda scripts, port: (scripts / "python", "-m", f"benchmarks.peers.{module}", str(port))


def _bentoml(scripts: Path, port: int) -> Sequence[str | Path]:
    service = "benchmarks.peers.bentoml_app:Classifier"
    return (scripts / "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port))


PEERS = (
    Peer("litserve", LITSERVE, _python("litserve_app")),
    Peer("bentoml", BENTOML, _bentoml),
    Peer("rayserve", RAY_DEFAULT, _python("ray_serve_app")),
    Peer("rayserve", RAY_TUNED, _python("ray_serve_app")),
)


def http_limits(work: Work, payload: Payload, threads: int) -> list[Contender]:
    """Bare uvicorn, granian if it is installed, and the raw protocol."""
    uvicorn = (sys.executable, "-m", "uvicorn", "benchmarks.limit:app", "--loop", "uvloop", "--http", "httptools")
    quiet = ("--no-access-log", "--log-level", "error", "--lifespan", "off")
    commands: dict[str, Callable[[int], Sequence[str | Path]]] = {
        LIMIT: lambda port: (*uvicorn, *quiet, "--port", str(port)),
        RAW: lambda port: (sys.executable, "-m", "benchmarks.limit_raw", str(port)),
    }
    if installed(work.home, "granian"):
        flags = [part for name, value in GRANIAN.options("command").items() for part in (f"--{name}", str(value))]
        granian: tuple[str | Path, ...] = (
            work.home / "granian" / "bin" / "granian",
            *flags,
            "--no-ws",
            "benchmarks.limit_granian:app",
        )
        commands[GRANIAN.row] = lambda port: (*granian, "--port", str(port))
    return [partial(_http_limit, work, name, command, payload, threads) for name, command in commands.items()]


@contextmanager
def _http_limit(
    work: Work, name: str, command: Callable[[int], Sequence[str | Path]], payload: Payload, threads: int
) -> Iterator[Sequence[Target]]:
    (port,) = free_ports(1)
    yield from _served(work, name, command(port), work.bench(threads), f"http://127.0.0.1:{port}/", payload)


def _served(
    work: Work, name: str, command: Sequence[str | Path], variables: Mapping[str, str], url: str, payload: Payload
) -> Iterator[Sequence[Target]]:
    launch = Launch(name, command, variables, lambda: requests.http_label(payload.post(url).raise_for_status()))
    with running(launch, work.label, work.scratch) as pid:
        yield [Target(name, pid, over_http(url, payload))]


def grpc_limits(work: Work, threads: int) -> list[Contender]:
    """Bare servers of pygrpc-native and of grpcio, with the image and with the tensor."""
    return [partial(_grpc_limit, work, kind, name, threads) for kind, name in GRPC_LIMITS.items()]


@contextmanager
def _grpc_limit(work: Work, kind: str, name: str, threads: int) -> Iterator[Sequence[Target]]:
    (port,) = free_ports(1)
    command = (sys.executable, "-m", "benchmarks.limit_grpc", str(port), kind)
    question = requests.message(work.net, "m", "tensor")
    launch = Launch(name, command, work.bench(threads), partial(requests.grpc_label, f"127.0.0.1:{port}", question))
    with running(launch, work.label, work.scratch) as pid:
        yield grpc_targets(work, name, pid, port, {"image": "m", "tensor": "m"})


def grpc_targets(work: Work, name: str, pid: int, port: int, models: Mapping[str, str]) -> list[Target]:
    """A server's rows over gRPC, by the kind of request that each of its models takes."""
    targets = []
    for kind, model in models.items():
        path = work.scratch / f"{model}-{kind}.grpc"
        body = requests.framed(requests.message(work.net, model, kind), path)
        drive = over_grpc(f"http://127.0.0.1:{port}/{INFER}", body)
        targets.append(Target(f"{name}, {kind}", pid, drive, f"{GRPC_LIMITS['native']}, {kind}"))
    return targets


def triton_http(work: Work, kind: str) -> Contender:
    """Triton over HTTP, with the image or with the tensor."""
    return partial(_triton, work, kind)


@contextmanager
def _triton(work: Work, kind: str) -> Iterator[Sequence[Target]]:
    http, grpc, metrics = free_ports(3)
    payload = (
        requests.image_tensor(work.net, work.scratch)
        if kind == "image"
        else requests.float_tensor(work.net, work.scratch)
    )
    url = f"http://127.0.0.1:{http}/v2/models/{kind}/infer"
    with _triton_running(work, (http, grpc, metrics), url, payload) as pid:
        yield [Target(TRITON.row, pid, over_http(url, payload))]


def triton_grpc(work: Work) -> Contender:
    """Triton over gRPC, with the image and with the tensor."""
    return partial(_triton_grpc, work)


@contextmanager
def _triton_grpc(work: Work) -> Iterator[Sequence[Target]]:
    http, grpc, metrics = free_ports(3)
    payload = requests.float_tensor(work.net, work.scratch)
    with _triton_running(
        work, (http, grpc, metrics), f"http://127.0.0.1:{http}/v2/models/tensor/infer", payload
    ) as pid:
        yield grpc_targets(work, TRITON.row, pid, grpc, {"image": "image", "tensor": "tensor"})


@contextmanager
def _triton_running(work: Work, ports: tuple[int, int, int], url: str, payload: Payload) -> Iterator[int]:
    threads = int(TRITON.options("engine")["intra_op_num_threads"])
    command, variables = triton_server.command(work.home / "triton", work.scratch / "triton-models", ports)
    launch = Launch(
        TRITON.row,
        command,
        variables | work.bench(threads),
        lambda: requests.http_label(payload.post(url).raise_for_status()),
    )
    with running(launch, work.label, work.scratch) as pid:
        yield pid


def _haproxy_files(scratch: Path) -> dict[str, str]:
    """Files and ports of HAProxy that no other Ray on this machine uses."""
    folder = scratch / f"haproxy-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    metrics, stats = free_ports(2)
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
    }
