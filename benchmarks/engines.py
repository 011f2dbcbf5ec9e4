"""`python -m benchmarks.engines`: measures size, top-1, agreement and images/s of every bundled model,
engine and precision.

Engines are built into a separate store. Results stay in `runs/engines`, so that an interrupted run resumes. The engines of a
model are measured in alternating rounds, so that other load on the machine affects all of them equally. `--write` puts the table
into docs/engines.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.marks import write_between
from benchmarks.nets import photos
from convoy.engine_names import CPU_BACKENDS
from convoy.errors import ArtifactError, ConvoyError
from models.artifact import BUNDLED, MANIFEST, Artifact
from models.engines.backends.cpu import cpu_name
from models.engines.backends.registry import Backend, installed_backends
from models.engines.build.builder import build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.engine import Engine
from models.engines.spec import BATCHES, EngineSpec, EvalSource
from models.engines.store.store import Store
from models.engines.store.stored_engine import StoredEngine

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "engines.md"
RUNS = ROOT / "runs" / "engines"
BEGIN, END = "<!-- made by python -m benchmarks.engines --write -->", "<!-- end -->"
ROUNDS = 5
HEAD = [
    "model",
    "engine",
    "precision",
    "accuracy check",
    "MB",
    "top-1",
    "agreement",
    *(f"images/s, {n}" for n in BATCHES),
]


@dataclass(frozen=True)
class Row:
    """An engine, or the reason why there is none.

    `key` is that of its build spec, `gate` the status of its accuracy check, `size` in bytes; shares are 0..1, `speeds` images/s
    by batch size.
    """

    model: str
    engine: str
    precision: str
    key: str
    gate: str
    size: int = 0
    top1: float | None = None
    agreement: float | None = None
    speeds: tuple[float, ...] = ()


def bundled() -> list[str]:
    return sorted(file.parent.name for file in BUNDLED.glob(f"*/{MANIFEST}"))


def build_specs(artifact: Artifact, backends: Sequence[Backend], source: EvalSource | None) -> list[EngineSpec]:
    """A build spec for every precision that each backend runs on this machine."""
    return [
        EngineSpec(artifact, backend, precision, source) for backend in backends for precision in backend.precisions()
    ]


def measure_model(wanted: Sequence[EngineSpec], store: Store, known: dict[str, Row], seconds: float) -> list[Row]:
    """Rows of a model. Unless all of their keys are known, all rows are measured: they are compared with each other."""
    if all(spec.key in known for spec in wanted):
        return [known[spec.key] for spec in wanted]
    stored: dict[str, StoredEngine] = {}
    refused: dict[str, str] = {}
    for spec in wanted:
        print(f"{spec.artifact.manifest.name}: {spec.backend.name} {spec.precision}", flush=True)
        try:
            stored[spec.key] = build_engine(spec, store)
        except ArtifactError as error:
            print(f"  {error}")
            refused[spec.key] = "refused"
    engines = {spec.key: _load(spec.backend, stored[spec.key]) for spec in wanted if spec.key in stored}
    speeds = measure_speeds(engines, seconds)
    references = (engine.manifest.judgement["reference_top1"] for engine in stored.values())
    reference = next(filter(None, references), None)
    return [_row(spec, stored.get(spec.key), refused, speeds, reference) for spec in wanted]


def measure_speeds(engines: dict[str, Engine], seconds: float) -> dict[str, tuple[float, ...]]:
    """Images/s at each batch size: the median of alternating rounds, in which each engine runs for `seconds` in all."""
    found: dict[str, list[float]] = {key: [] for key in engines}
    for size in BATCHES:
        rounds: dict[str, list[float]] = {key: [] for key in engines}
        for number in range(ROUNDS + 1):
            for key, engine in engines.items():
                speed = speed_of(engine.run, _random_rows(engine, size), seconds / ROUNDS)
                if number:  # the first round is the warm-up
                    rounds[key].append(speed)
        for key in engines:
            found[key].append(statistics.median(rounds[key]))
    return {key: tuple(speeds) for key, speeds in found.items()}


def table(rows: Sequence[Row], threads: int) -> str:
    """The Markdown for docs/engines.md."""
    lines = [
        f"Measured {datetime.date.today().isoformat()} on {cpu_name()} with {threads} threads per engine; images/s by batch",
        "size, in alternating rounds. Top-1 is measured on the 4,500 validation images of the accuracy check; cells without "
        "such images are empty.",
        "",
        *lines_of(rows),
    ]
    return "\n".join(lines)


def lines_of(rows: Sequence[Row]) -> list[str]:
    """The table without its introduction."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    for row in rows:
        cells = [row.model, row.engine, row.precision, row.gate]
        cells += [f"{row.size / 1e6:.2f}" if row.size else "", _percent(row.top1), _percent(row.agreement)]
        cells += [f"{speed:,.0f}" for speed in row.speeds] or [""] * len(BATCHES)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _load(backend: Backend, entry: StoredEngine) -> Engine:
    precision: Any = entry.precision
    return backend.load(entry.folder / "image.onnx", len(os.sched_getaffinity(0)), precision)


def _row(
    spec: EngineSpec,
    entry: StoredEngine | None,
    refused: dict[str, str],
    speeds: dict[str, tuple[float, ...]],
    reference: float | None,
) -> Row:
    backend = spec.backend
    row = Row(
        model=spec.artifact.manifest.name,
        engine=f"{backend.name} {backend.version.partition('-')[0]}",
        precision=spec.precision,
        key=spec.key,
        gate=refused.get(spec.key, ""),
    )
    if entry is None:
        return row
    judgement = entry.manifest.judgement
    top1 = reference if spec.precision == "fp32" else judgement["top1"]
    measured = {"gate": entry.status, "size": entry.manifest.size, "top1": top1, "agreement": judgement["agreement"]}
    return Row(**{**asdict(row), **measured, "speeds": speeds[spec.key]})


def speed_of(run: Callable[[NDArray[np.uint8]], Any], rows: NDArray[np.uint8], seconds: float) -> float:
    """Images/s of a function that runs `rows` again and again for `seconds`."""
    start = time.perf_counter()
    runs = 0
    while (passed := time.perf_counter() - start) < seconds or not runs:
        run(rows)
        runs += 1
    return runs * len(rows) / passed


def _random_rows(engine: Engine, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (size, *engine.input.shape[1:]), np.uint8)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _read(path: Path) -> dict[str, Row]:
    if not path.exists():
        return {}
    rows = [Row(**{**row, "speeds": tuple(row["speeds"])}) for row in json.loads(path.read_text())]
    return {row.key: row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--model", action="append", help="a bundled model; may be repeated  [default: all]")
    parser.add_argument("--seconds", type=float, default=1.0, help="per engine and batch size  [default: %(default)s]")
    parser.add_argument(
        "--out", type=Path, default=RUNS, help="folder of the engines and results  [default: runs/engines]"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/engines.md")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "rows.json"
    known, store = _read(path), Store(arguments.out / "store")
    backends = [backend for backend in installed_backends() if backend.name in CPU_BACKENDS]
    shown: list[Row] = []
    for name in arguments.model or bundled():
        try:
            artifact = Artifact.load(BUNDLED / name)
            wanted = build_specs(
                artifact,
                backends,
                find_eval_source(artifact) or find_eval_source(artifact, photos(arguments.out / "photos")),
            )
            rows = measure_model(wanted, store, known, arguments.seconds)
        except ConvoyError as error:
            parser.exit(1, f"{name}: {error}\n")
        known |= {row.key: row for row in rows}
        shown += rows
        path.write_text(json.dumps([asdict(row) for row in known.values()], indent=1) + "\n")
    body = table(shown, len(os.sched_getaffinity(0)))
    print(body)
    if arguments.write:
        write_between(PAGE, BEGIN, body, END)


if __name__ == "__main__":
    main()
