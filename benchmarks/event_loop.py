"""CPU profile of the gateway's event loop: py-spy samples of its thread, counted by part of the program."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks import nets
from benchmarks.load import Load, wrk
from benchmarks.sections import OCTETS, Row, Setup, classify, model
from benchmarks.server import SCRIPTS, Server, serving

CONNECTIONS = 32
SAMPLES_PER_SECOND = 400
LOOP = "AsyncIO Thread: default"  # the thread on which Ray Serve runs a deployment's coroutines
BELOW_PYTHON = "uvloop and the kernel: sockets, wake-ups, timers"
# The innermost frame that matches a pattern decides. Stacks without such a frame (Ray and others) count as "other".
PARTS = (
    ("engine, run on the loop", r"models/engines/"),
    ("decoding", r"serve/images/|PIL/|simplejpeg"),
    ("HTTP: parsing, headers, writing", r"serve/http/(http1|body|compression)|serve/acceptor"),
    (
        "JSON documents, tensors",
        r"convoy/wire/|serve/http/(infer|responses|dialects|json_documents)|serve/api/|serve/batching/top_k",
    ),
    ("queue, batches, responses", r"serve/batching/|serve/executors/|serve/ensembles/|serve/worker_threads"),
    ("admission, times, metrics", r"serve/http/|serve/gateway/|serve/telemetry/|serve/auth"),
)  # fmt: skip


def event_loop(setup: Setup) -> list[Row]:
    """LeNet-5 with float tensors and with images, at 32 connections."""
    net = setup.lenet5()
    body = setup.scratch / "tensor.bin"
    binary = OCTETS | {"Inference-Header-Content-Length": str(nets.tensor_body((1, 1, 28, 28), body))}
    rows = []
    with serving(setup.scratch, [model(net)]) as server:
        tensors = f"{server.http}/v2/models/{net.name}-tensor/infer"
        for name, load in (
            ("tensors over HTTP", partial(wrk, tensors, body, CONNECTIONS, setup.seconds, binary)),
            (
                "images over HTTP",
                partial(wrk, classify(server, net.name), net.image, CONNECTIONS, setup.seconds, OCTETS),
            ),
        ):
            rows += _measure(setup, server, name, load)
    return rows


def _measure(setup: Setup, server: Server, name: str, load: Callable[[], Load]) -> list[Row]:
    file = setup.scratch / "stacks.txt"
    record = [str(SCRIPTS / "py-spy"), "record", "--pid", str(server.gateway()), "--format", "raw", "--threads"]
    sampling = ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(setup.seconds), "--output", str(file)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load)
        subprocess.run([*record, *sampling], check=True, capture_output=True)
        failed = running.result().failed
    parts = by_part(file.read_text().splitlines())
    samples = sum(parts.values())
    return [
        {"load": name, "part": part, "share": count / samples, "failed": failed} for part, count in parts.most_common()
    ]


def by_part(stacks: Iterable[str]) -> Counter[str]:
    """Samples of the event loop's thread by part, from lines `frame;frame;… count` with the innermost function last."""
    parts: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        if LOOP in stack:
            parts[part_of(stack.split(";"))] += int(count)
    return parts


def part_of(frames: list[str]) -> str:
    """The part that a stack's innermost known function belongs to."""
    if "threading.py" in frames[-1]:
        return BELOW_PYTHON
    for frame in reversed(frames):
        for part, pattern in PARTS:
            if re.search(pattern, frame):
                return part
    return "other"
