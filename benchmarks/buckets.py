"""`python -m benchmarks.buckets`: compares engines for one fixed batch size with the engine for any batch size.

Both run the same artifact on all cores, in alternating rounds. `--write` puts the table into docs/engines.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino

from benchmarks.engines import PAGE, speed_of
from benchmarks.marks import write_between
from models.artifact import BUNDLED, IMAGE_MODEL
from models.engines.backends.cpu import cpu_name
from models.engines.backends.onnxruntime import session_options
from models.engines.spec import BATCHES

MODELS = ("resnet20-cifar10", "squeezenet1_1-imagenet")
ROUNDS = 21
WARM_SECONDS = 0.5
BEGIN, END = "<!-- made by python -m benchmarks.buckets --write -->", "<!-- end of buckets -->"

Run = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Row:
    """Images/s of a model in a library at a batch size, per round: (engine for any batch size, engine for this one)."""

    model: str
    library: str
    batch: int
    rounds: tuple[tuple[float, float], ...]

    @property
    def gains(self) -> list[float]:
        """Relative gain of the fixed batch size in each round, sorted."""
        return sorted(fixed / flexible - 1 for flexible, fixed in self.rounds)


def in_onnx_runtime(graph: Path, batch: int | None, threads: int) -> Run:
    options = session_options(threads)
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    model_input = session.get_inputs()[0]
    if batch is not None and model_input.shape[0] != batch:
        raise ValueError(f"the first dimension of {graph} is not named batch")
    return lambda rows: session.run(None, {model_input.name: rows})


def in_openvino(graph: Path, batch: int | None, threads: int) -> Run:
    core = openvino.Core()
    model = core.read_model(str(graph))
    if batch is not None:
        model.reshape([batch, *(size.get_length() for size in model.inputs[0].partial_shape[1:])])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", settings | {"ENABLE_CPU_PINNING": False}).create_infer_request()
    return lambda rows: request.infer({0: rows}, share_inputs=True, share_outputs=True)


LIBRARIES: dict[str, Callable[[Path, int | None, int], Run]] = {
    "ONNX Runtime": in_onnx_runtime,
    "OpenVINO": in_openvino,
}


def measure(model: str, library: str, batch: int, seconds: float) -> Row:
    """Alternating rounds of both engines, in which each of them runs for `seconds` in all."""
    threads, graph = len(os.sched_getaffinity(0)), BUNDLED / model / IMAGE_MODEL
    runs = [LIBRARIES[library](graph, size, threads) for size in (None, batch)]
    shape = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    rows = np.random.default_rng(0).integers(0, 256, (batch, *shape[1:]), np.uint8)
    for run in runs:
        speed_of(run, rows, WARM_SECONDS)
    rounds = [[speed_of(run, rows, seconds / ROUNDS) for run in runs] for _ in range(ROUNDS)]
    return Row(model, library, batch, tuple((flexible, fixed) for flexible, fixed in rounds))


def table(rows: Sequence[Row]) -> str:
    """The Markdown for docs/engines.md."""
    head = [
        "model",
        "library",
        "batch",
        "any batch size, images/s",
        "this batch size, images/s",
        "gain",
        "quartiles of the gain",
    ]
    lines = [
        f"Measured {datetime.date.today().isoformat()} on {cpu_name()} with {len(os.sched_getaffinity(0))} threads, in",
        f"{ROUNDS} alternating rounds: medians of the speeds and of the gains per round.",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
    ]
    for row in rows:
        speeds = [f"{statistics.median(speeds):,.0f}" for speeds in zip(*row.rounds, strict=True)]
        low, middle, high = statistics.quantiles(row.gains, n=4)
        cells = [row.model, row.library, str(row.batch), *speeds, f"{middle:+.1%}", f"{low:+.1%} to {high:+.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.buckets", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="per engine and batch size  [default: %(default)s]")
    parser.add_argument("--write", action="store_true", help="put the table into docs/engines.md")
    arguments = parser.parse_args()
    rows = [
        measure(model, library, batch, arguments.seconds)
        for model in MODELS
        for library in LIBRARIES
        for batch in BATCHES
    ]
    body = table(rows)
    print(body)
    if arguments.write:
        write_between(PAGE, BEGIN, body, END)


if __name__ == "__main__":
    main()
