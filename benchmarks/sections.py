"""The sections of docs/performance.md, one function each. Each starts its own server and returns JSON-ready rows."""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import nets, peers, ray_alone
from benchmarks.load import h2load, wrk
from benchmarks.nets import Net
from benchmarks.server import RUNTIME_SCRIPTS, Server, serving
from convoy.protos import classifier_pb2
from models.engines.backends.registry import load_engine
from models.engines.engine import Engine
from models.images.decoder import Decoder
from serve.deployments.local import RAY_ENVIRONMENT
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics, ModelRecorder

Row = dict[str, Any]
OCTETS = {"Content-Type": "application/octet-stream"}
GRPC_PATH = "convoy.v1.Classifier/Classify"
TURNS = 7
PATIENT: Row = {"target_ms": 2000}  # permits long batches: here throughput counts, not latency


@dataclass(frozen=True)
class Setup:
    """Scratch folder, length of a measurement, the compare scripts if present, the peers, and length of the soak test."""

    scratch: Path
    seconds: int
    bench: peers.Bench | None
    peers: str
    soak_seconds: float

    def lenet5(self) -> Net:
        return nets.lenet5(self.bench.scripts / "lenet5.onnx" if self.bench else None, self.scratch)

    def resnet18(self) -> Net:
        return nets.resnet18(self.scratch)

    def compare(self, net: Net, ours: Mapping[str, str], connections: int, tensor: bool = False) -> list[Row]:
        if self.bench:
            results = self.bench.compare(net, ours, connections, self.seconds, tensor, self.peers)
        else:
            results = peers.alone(net, ours, connections, self.seconds, tensor, self.scratch)
        return [dataclasses.asdict(result) for result in results]


def model(net: Net, name: str = "", **options: Any) -> Row:
    """The configuration of a model that serves `net`."""
    return {"name": name or net.name, "artifact": str(net.artifact.folder), **options}


def classify(server: Server, name: str) -> str:
    """The URL that classifies with a model."""
    return f"{server.http}/v1/models/{name}/classify"


def lenet5_images(setup: Setup) -> list[Row]:
    """LeNet-5, 28x28 PNG over HTTP, local and dedicated, with the server's profile under each load."""
    net = setup.lenet5()
    with serving(setup.scratch, [model(net), model(net, "hosted", placement="dedicated")]) as server:
        ours = {"Convoy, local": classify(server, net.name), "Convoy, dedicated": classify(server, "hosted")}
        rows = setup.compare(net, ours, 32)
        for name, url in ours.items():
            rows.append({"name": name, **profiled(server, partial(wrk, url, net.image, 32, 6, OCTETS))})
        return rows


def lenet5_tensors(setup: Setup) -> list[Row]:
    """LeNet-5, 28x28 float tensors in the Open Inference Protocol's binary form, over HTTP."""
    return _tensors(setup, setup.lenet5(), 32, (1, 1, 28, 28))


def lenet5_grpc(setup: Setup) -> list[Row]:
    """The same images and tensors over gRPC, 32 in flight on 4 connections."""
    return _grpc(setup, setup.lenet5(), 2500 * setup.seconds)


def resnet18_images(setup: Setup) -> list[Row]:
    """ResNet-18, 500x375 JPEG over HTTP, local and dedicated, 16 connections; and a tight loop of decoding and running."""
    net = setup.resnet18()
    hosted = model(net, "hosted", placement="dedicated", **PATIENT)
    with serving(setup.scratch, [model(net, **PATIENT), hosted]) as server:
        ours = {"Convoy, local": classify(server, net.name), "Convoy, dedicated": classify(server, "hosted")}
        rows = setup.compare(net, ours, 16)
        rows.append(_in_turns(net, ours["Convoy, local"], 16, setup.seconds // 2))
        for name, url in ours.items():
            rows.append({"name": name, **profiled(server, partial(wrk, url, net.image, 16, 8, OCTETS))})
    return [*rows, {"name": "tight loop", "connections": 16, "rps": tight_loop(net, setup.seconds), "failed": 0}]


def _in_turns(net: Net, ours: str, connections: int, seconds: int) -> Row:
    """Measures the limit and Convoy in turns, because the machine's speed drifts; `of_limit` is the median ratio of a turn."""
    with peers.limit(net) as limit:
        turns = [[wrk(url, net.image, connections, seconds, OCTETS) for url in (limit, ours)] for _ in range(TURNS)]
    return {
        "name": "Convoy, local, in turns with the limit",
        "connections": connections,
        "rps": statistics.median(convoy.rps for _, convoy in turns),
        "of_limit": statistics.median(convoy.rps / limit.rps for limit, convoy in turns),
        "failed": sum(load.failed for turn in turns for load in turn),
    }


def resnet18_tensors(setup: Setup) -> list[Row]:
    """ResNet-18, 3x224x224 float tensors in the Open Inference Protocol's binary form, over HTTP."""
    return _tensors(setup, setup.resnet18(), 16, (1, 3, 224, 224))


def resnet18_grpc(setup: Setup) -> list[Row]:
    """The same photos and tensors over gRPC, 32 in flight on 4 connections."""
    return _grpc(setup, setup.resnet18(), 40 * setup.seconds)


def _tensors(setup: Setup, net: Net, connections: int, shape: tuple[int, ...]) -> list[Row]:
    with serving(setup.scratch, [model(net, **PATIENT)]) as server:
        ours = {"Convoy, local": f"{server.http}/v2/models/{net.name}-tensor/infer"}
        rows = setup.compare(net, ours, connections, tensor=True)
        body = setup.scratch / "tensor.bin"
        headers = OCTETS | {"Inference-Header-Content-Length": str(nets.tensor_body(shape, body))}
        load = partial(wrk, ours["Convoy, local"], body, connections, 6, headers)
        return [*rows, {"name": "Convoy, local", **profiled(server, load)}]


def _grpc(setup: Setup, net: Net, requests: int) -> list[Row]:
    with serving(setup.scratch, [model(net, **PATIENT)]) as server:
        port = server.grpc_port
        if setup.bench:
            ours = [f"{port}:{net.name}:image", f"{port}:{net.name}-tensor:tensor"]
            rows = [dataclasses.asdict(result) for result in setup.bench.compare_grpc(net, ours, requests)]
        else:
            rows = []
        message = setup.scratch / "classify.bin"
        request = classifier_pb2.ClassifyRequest(model=net.name, images=[net.image.read_bytes()])
        message.write_bytes(nets.grpc_frame(request.SerializeToString()))
        url = f"http://127.0.0.1:{port}/{GRPC_PATH}"
        return [*rows, {"name": "Convoy, Classify", **profiled(server, partial(h2load, url, message, 4, 8, requests))}]


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

    def drive(name: str, url: str) -> None:
        for count in (32, 1):
            load = wrk(url, net.image, count, setup.seconds, OCTETS)
            rows.append({"name": name, "connections": count, **dataclasses.asdict(load)})

    with peers.limit(net) as url:
        drive("limit", url)
    hosted = model(net, "hosted", placement="dedicated")
    with serving(setup.scratch, [model(net, threads=1), model(net, "two", threads=2), hosted]) as server:
        drive("engine of 1 thread", classify(server, net.name))
        drive("engine of 2 threads", classify(server, "two"))
        drive("dedicated", classify(server, "hosted"))
        server.set_niceness(15)
        drive("engine of 1 thread, niceness 15 as Ray's default", classify(server, net.name))
        drive("dedicated, niceness 15", classify(server, "hosted"))
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
