"""The sections of docs/performance.md, one function each. Each starts its own server and returns JSON-ready rows."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import nets, ray_alone
from benchmarks.load import wrk
from benchmarks.nets import Net
from benchmarks.peers import requests
from benchmarks.peers.contenders import Work, http_limits, installed
from benchmarks.peers.requests import OCTETS as OCTETS
from benchmarks.server import RUNTIME_SCRIPTS, Server, serving
from benchmarks.turns import WARM_SECONDS, Drive, over_http
from models.engines.backends.registry import load_engine
from models.engines.engine import Engine
from models.images.decoder import Decoder
from serve.deployments.local import RAY_ENVIRONMENT
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics, ModelRecorder

Row = dict[str, Any]
GRPC_PATH = "convoy.v1.Classifier/Classify"
PATIENT: Row = {"target_ms": 2000}  # permits long batches: here throughput counts, not latency


@dataclass(frozen=True)
class Setup:
    """Scratch folder, length of a measurement, folder of the peers' environments, peers to run, length of the soak test."""

    scratch: Path
    seconds: int
    home: Path
    peers: Sequence[str]
    soak_seconds: float

    def lenet5(self) -> Net:
        return nets.lenet5(self.scratch)

    def resnet18(self) -> Net:
        return nets.resnet18(self.scratch)

    def work(self, net: Net) -> Work:
        """What the limits and peers have to do with a network."""
        return Work(net, self.home, self.scratch)

    def runs(self, peer: str) -> bool:
        """Whether a peer was chosen and is installed."""
        return peer in self.peers and installed(self.home, peer)


def model(net: Net, name: str = "", **options: Any) -> Row:
    """The configuration of a model that serves `net`."""
    return {"name": name or net.name, "artifact": str(net.artifact.folder), **options}


def classify(server: Server, name: str) -> str:
    """The URL that classifies with a model."""
    return f"{server.http}/v1/models/{name}/classify"


def tight_loop(net: Net, seconds: float, batch: int = 16, engine: Engine | None = None) -> float:
    """Images per second of a loop that decodes a batch on two cores, then runs it on two cores, and does nothing else.

    `engine` defaults to ONNX Runtime with the net's own graph.
    """
    cores = 2
    engine = engine or load_engine(net.artifact.image_model, cores)
    decoder = Decoder(net.artifact.manifest.preprocessing)
    body = net.image.read_bytes()
    done, start = 0, time.monotonic()
    with ThreadPoolExecutor(cores) as pool:
        while time.monotonic() - start < seconds:
            engine.run(np.stack(list(pool.map(decoder.decode, [body] * batch))))
            done += batch
    return done / (time.monotonic() - start)


def attempts(setup: Setup) -> list[Row]:
    """Variants tried for LeNet-5 images, with 32 connections and with one, compared with the limit in the same run."""
    net, rows = setup.lenet5(), []
    payload = requests.image(net)

    def drive(name: str, load: Drive) -> None:
        for count in (32, 1):
            load(count, WARM_SECONDS)
            rows.append({"name": name, "connections": count, **dataclasses.asdict(load(count, setup.seconds))})

    bare_uvicorn = http_limits(setup.work(net), payload, threads=1)[0]
    with bare_uvicorn() as (target,):
        drive(target.name, target.drive)
    hosted = model(net, "hosted", placement="dedicated")
    with serving(setup.scratch, [model(net, threads=1), model(net, "two", threads=2), hosted]) as server:
        one, two, dedicated = (over_http(classify(server, name), payload) for name in (net.name, "two", "hosted"))
        drive("engine of 1 thread", one)
        drive("engine of 2 threads", two)
        drive("dedicated", dedicated)
        server.set_niceness(15)
        drive("engine of 1 thread, niceness 15 as Ray's default", one)
        drive("dedicated, niceness 15", dedicated)
    return rows


def metrics_cost(setup: Setup) -> list[Row]:
    """CPU time of recording a request in the metrics, compared with the event loop's total time per request."""
    net, count, batch = setup.lenet5(), 100_000, 16
    recorder = ModelRecorder(Metrics(MmapWriter(setup.scratch / "metrics")), "net", "1")
    start = time.thread_time()
    for number in range(count):
        recorder.request((0.0001, 0.0002, 0.001, 0.0005, 0.0001, 0.0001))
        recorder.code("http", "200")
        if number % batch == 0:
            recorder.batch(batch, 0.001)
    recording = (time.thread_time() - start) / count * 1e6
    with serving(setup.scratch, [model(net)]) as server:
        row = profiled(server, partial(wrk, classify(server, net.name), net.image, 32, 6, OCTETS))
    (answered,) = row["profile"]["models"]
    busy = {resource["name"]: resource["busy"] for resource in row["profile"]["resources"]}
    total = busy["event loop"] / answered["requests_per_second"] * 1e6
    return [{"recording_us": recording, "request_us": total, "rate_with_of_without": 1 - recording / total}]


def profiled(server: Server, load: Callable[[], Any]) -> Row:
    """The server's own profile under load, the CPU time of all its processes per request, and the number of failures."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load)
        time.sleep(2.5)  # past the warm-up
        cpu = server.cpu_seconds()
        answer = httpx.get(f"{server.http}/v1/profile", params={"seconds": 3}, timeout=60)
        cpu = server.cpu_seconds() - cpu
        failed = running.result().failed
    profile = answer.raise_for_status().json()
    requests = sum(served["requests_per_second"] for served in profile["models"]) * profile["seconds"]
    return {"profile": profile, "cpu_ms_per_request": cpu / max(1.0, requests) * 1000, "failed": failed}


def _ray_alone() -> float:
    """Seconds until Ray Serve runs one empty deployment, in the serving environment and with Convoy's settings of Ray."""
    command = [str(RUNTIME_SCRIPTS / "python"), "-m", "benchmarks.ray_alone"]
    start = time.monotonic()
    with subprocess.Popen(command, env=os.environ | RAY_ENVIRONMENT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        line, seconds = child.stdout.readline().strip(), time.monotonic() - start
        child.stdout.read()
    if line != ray_alone.READY:
        raise RuntimeError(f"Ray Serve alone did not start: it printed {line!r}")
    return seconds


def start_up(setup: Setup) -> list[Row]:
    """Start time and idle cost of `convoy up` in the serving environment, with three bundled models, three times.

    Ray Serve with an empty deployment is started before each: the lower bound for any server on Ray.
    """
    alone, ready, idle, memory = [], [], [], []
    bundled = [{"name": "lenet5-mnist"}, {"name": "resnet20-cifar10"}]
    hosted = {"name": "squeezenet1_1-imagenet", "placement": "dedicated"}
    for _ in range(3):
        alone.append(_ray_alone())
        with serving(setup.scratch, [*bundled, hosted], scripts=RUNTIME_SCRIPTS) as server:
            ready.append(server.ready_seconds)
            time.sleep(5)
            before = server.cpu_seconds()
            time.sleep(10)
            idle.append((server.cpu_seconds() - before) / 10)
            memory.append(server.memory_bytes() / 1e6)
    return [
        {"name": "seconds to Ray Serve with one empty deployment", "median": statistics.median(alone), "all": alone},
        {"name": "seconds to ready", "median": statistics.median(ready), "all": ready},
        {"name": "idle cores", "median": statistics.median(idle), "all": idle},
        {"name": "memory, MB (PSS)", "median": statistics.median(memory), "all": memory},
    ]


def growth_connections(setup: Setup) -> list[Row]:
    """LeNet-5, PNG, 1 to 512 connections."""
    net = setup.lenet5()
    with serving(setup.scratch, [model(net)]) as server:
        url = classify(server, net.name)
        return _grow((1, 2, 4, 8, 16, 32, 64, 128, 256, 512), lambda n: wrk(url, net.image, n, 3, OCTETS))


def growth_images(setup: Setup) -> list[Row]:
    """LeNet-5, float tensors, 1 to 64 images per request, 8 connections."""
    net, body = setup.lenet5(), setup.scratch / "rows.bin"

    def load(server: Server, rows: int) -> Any:
        headers = OCTETS | {"Inference-Header-Content-Length": str(nets.tensor_body((rows, 1, 28, 28), body))}
        return wrk(f"{server.http}/v2/models/{net.name}-tensor/infer", body, 8, 3, headers)

    with serving(setup.scratch, [model(net)]) as server:
        return _grow((1, 2, 4, 8, 16, 32, 64), partial(load, server))


def growth_payload(setup: Setup) -> list[Row]:
    """LeNet-5, PNGs of noise from 4 KB to 8 MB, 8 connections."""
    net, body = setup.lenet5(), setup.scratch / "noise.png"

    def load(server: Server, kilobytes: int) -> Any:
        body.write_bytes(nets.noise(kilobytes * 1000))
        return wrk(classify(server, net.name), body, 8, 3, OCTETS)

    with serving(setup.scratch, [model(net)]) as server:
        return _grow((4, 16, 64, 256, 1024, 4096, 8192), partial(load, server))


def growth_models(setup: Setup) -> list[Row]:
    """LeNet-5 under 1 to 15 names in one gateway; each gets an equal share of 30 connections."""
    net, rows = setup.lenet5(), []
    for count in (1, 5, 15):
        names = [f"lenet5-{number}" for number in range(count)]
        with serving(setup.scratch, [model(net, name) for name in names]) as server:
            urls = [classify(server, name) for name in names]
            with ThreadPoolExecutor(count) as pool:
                loads = list(
                    pool.map(partial(wrk, body=net.image, connections=30 // count, seconds=4, headers=OCTETS), urls)
                )
        rows.append(_row(count, sum(load.rps for load in loads), max(load.p99_ms for load in loads), loads))
    return rows


def growth_gateways(setup: Setup) -> list[Row]:
    """LeNet-5, 1 and 2 gateways on this machine, 32 connections."""
    net, rows = setup.lenet5(), []
    for count in (1, 2):
        with serving(setup.scratch, [model(net)], gateways=count) as server:
            load = wrk(classify(server, net.name), net.image, 32, 4, OCTETS)
        rows.append(_row(count, load.rps, load.p99_ms, [load]))
    return rows


def growth_hosts(setup: Setup) -> list[Row]:
    """LeNet-5, 1 and 2 hosts, 32 connections."""
    net, rows = setup.lenet5(), []
    for count in (1, 2):
        hosted = model(net, placement="dedicated", replicas=count)
        with serving(setup.scratch, [hosted]) as server:
            load = wrk(classify(server, net.name), net.image, 32, 4, OCTETS)
        rows.append(_row(count, load.rps, load.p99_ms, [load]))
    return rows


def _grow(sizes: Iterable[int], load: Callable[[int], Any]) -> list[Row]:
    rows = []
    for size in sizes:
        result = load(size)
        rows.append(_row(size, result.rps, result.p99_ms, [result]))
    return rows


def _row(size: int, rps: float, p99_ms: float, loads: Sequence[Any]) -> Row:
    return {"size": size, "rps": rps, "p99_ms": p99_ms, "failed": sum(load.failed for load in loads)}
