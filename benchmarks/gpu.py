"""`python -m benchmarks.gpu`: one report of everything that needs an NVIDIA GPU: tests, engines, placements, decoding.

`--write` puts the report into docs/gpu.md. Without a GPU the command fails at once and leaves the page unchanged.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.decode import timed
from benchmarks.engines import Row, build_specs, bundled, lines_of, measure_model
from benchmarks.load import wrk
from benchmarks.marks import write_between
from benchmarks.nets import Net, photos, resnet18
from benchmarks.sections import OCTETS
from benchmarks.server import serving
from convoy.engine_names import CPU_BACKENDS, GPU_BACKENDS
from convoy.errors import ConfigError
from models.artifact import BUNDLED, Artifact
from models.engines.backends.gpu import Gpu, find_gpu
from models.engines.backends.registry import Backend, find_backend
from models.engines.build.eval_data import find_eval_source
from models.engines.spec import BATCHES
from models.engines.store.store import Store
from models.images.decoder import Decoder

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gpu.md"
RUNS = ROOT / "runs" / "gpu"
BEGIN, END = "<!-- made by make gpu-check -->", "<!-- end -->"
TESTS = ("tests/gpu", "tests/models/engines/backends/test_contract.py")
CONNECTIONS = 64


def find_backends() -> tuple[list[Backend], dict[str, str]]:
    """The GPU backends that run on this machine, and for each other one the reason why it does not."""
    found: list[Backend] = []
    absent: dict[str, str] = {}
    for name in GPU_BACKENDS:
        try:
            found.append(find_backend(name))
        except ConfigError as error:
            absent[name] = str(error)
    return found, absent


def run_tests() -> tuple[int, str]:
    """Runs the tests that need a GPU. Returns pytest's exit code and its last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", *TESTS]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout)
    return done.returncode, done.stdout.strip().splitlines()[-1].strip("= ")


def measure_engines(net: Net, backends: Sequence[Backend], store: Store, seconds: float) -> list[Row]:
    """Measures a ResNet-18 and every bundled network in the GPU engines and, for comparison, in a CPU engine."""
    compared = [find_backend(CPU_BACKENDS[0]), *backends]
    rows = measure_model(
        build_specs(net.artifact, compared, find_eval_source(net.artifact, photos(RUNS / "photos"))), store, {}, seconds
    )
    for name in bundled():
        artifact = Artifact.load(BUNDLED / name)
        rows += measure_model(build_specs(artifact, compared, find_eval_source(artifact)), store, {}, seconds)
    return rows


def placements(net: Net, best: Row, store: Store, seconds: float) -> list[str]:
    """Measures the same engine in the gateway and in a host, over HTTP with JPEG photos."""
    lines = ["| placement | images/s | p50 ms | p99 ms | failed |", f"|{' --- |' * 5}"]
    for placement in ("local", "dedicated"):
        model = {"name": net.name, "artifact": str(net.artifact.folder), "placement": placement, "target_ms": 500}
        model |= {"engine": best.engine.split()[0], "precision": best.precision}
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder), [model], engines=str(store.root)) as server:
            url = f"{server.http}/v1/models/{net.name}/classify"
            load = wrk(url, net.image, CONNECTIONS, seconds, OCTETS)
        cells = [placement, f"{load.rps:,.0f}", f"{load.p50_ms:.1f}", f"{load.p99_ms:.1f}", str(load.failed)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def decoding(net: Net, best: Row) -> str:
    """A sentence about the number of cores that decode fast enough for the engine."""
    decoder = Decoder(net.artifact.manifest.preprocessing)
    (seconds,) = timed({"Decoder": partial(decoder.decode, net.image.read_bytes())}, 21).values()
    speed = max(best.speeds)
    return (
        f"A core decodes {1 / seconds:,.0f} photos of 500x375 per second; {best.engine} {best.precision} runs {speed:,.0f}. "
        f"It takes {speed * seconds:.1f} cores to keep the GPU busy; this machine has {len(os.sched_getaffinity(0))}."
    )


def report(gpu: Gpu, seconds: float) -> tuple[int, str]:
    """The tests' exit code, and the Markdown for docs/gpu.md. Raises ConfigError if no GPU engine runs."""
    backends, absent = find_backends()
    if not backends:
        raise ConfigError("\n".join(absent.values()))
    code, summary = run_tests()
    RUNS.mkdir(parents=True, exist_ok=True)
    net, store = resnet18(RUNS), Store(RUNS / "store")
    rows = measure_engines(net, backends, store, seconds)
    candidates = [row for row in rows if row.model == net.name and row.speeds and row.engine.split()[0] in GPU_BACKENDS]
    best = max(candidates, key=lambda row: max(row.speeds))
    lines = [
        f"Run {datetime.date.today().isoformat()} on {gpu.name}, compute capability {gpu.capability}, "
        f"{gpu.memory / 2**30:.0f} GiB, driver {gpu.driver}.",
        "",
        f"Tests: {summary}.",
        *(f"- not run, {name}: {why}" for name, why in absent.items()),
        "",
        f"Images/s by batch size {', '.join(map(str, BATCHES))}; `resnet18` has random weights, so its accuracy means nothing.",
        "",
        *lines_of(rows),
        "",
        f"`resnet18` in {best.engine} {best.precision} over HTTP, JPEG photos, {CONNECTIONS} connections:",
        "",
        *placements(net, best, store, 10 * seconds),
        "",
        decoding(net, best),
    ]
    return code, "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="per engine and batch size  [default: %(default)s]")
    parser.add_argument("--write", action="store_true", help="put the report into docs/gpu.md")
    arguments = parser.parse_args()
    try:
        code, body = report(find_gpu(), arguments.seconds)
    except ConfigError as error:
        parser.exit(1, f"{error}\nNothing was run; docs/gpu.md is unchanged.\n")
    print(body)
    if arguments.write:
        write_between(PAGE, BEGIN, body, END)
    sys.exit(code)


if __name__ == "__main__":
    main()
