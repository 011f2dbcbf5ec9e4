"""`python -m benchmarks.run [SECTION…]`: measures the data plane and writes docs/performance.md.

With the compare scripts (`--bench`, default ../shared/bench, after their setup.sh) the peers run too; without them only the limit
does. Needs wrk and h2load. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import ray

from benchmarks import cold_start, event_loop, mlperf, overload, page, precision, pressure, protocols, sections
from benchmarks.peers import Bench
from benchmarks.sections import Row, Setup

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
SCRATCH = Path(tempfile.gettempdir()) / "convoy-benchmarks"

SECTIONS: dict[str, Callable[[Setup], list[Row]]] = {
    function.__name__: function
    for function in (
        sections.lenet5_images,
        sections.lenet5_tensors,
        sections.lenet5_grpc,
        protocols.protocols,
        sections.resnet18_images,
        sections.resnet18_tensors,
        sections.resnet18_grpc,
        mlperf.mlperf,
        precision.precision,
        event_loop.event_loop,
        sections.attempts,
        sections.metrics_cost,
        sections.start_up,
        cold_start.cold_start,
        pressure.overload,
        overload.overload_matrix,
        pressure.memory,
        sections.growth_connections,
        sections.growth_images,
        sections.growth_payload,
        sections.growth_models,
        sections.growth_gateways,
        sections.growth_hosts,
    )
}


def main() -> None:
    shared = Path(os.environ.get("CONVOY_SHARED") or ROOT.parent / "shared")
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}  [default: all]")
    parser.add_argument(
        "--bench", type=Path, default=shared / "bench", help="folder of compare.sh  [default: %(default)s]"
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path.home() / ".cache" / "convoy-bench",
        help="BENCH_HOME of setup.sh  [default: %(default)s]",
    )
    parser.add_argument(
        "--peers", default="triton litserve bentoml rayserve", help="peers to run  [default: %(default)s]"
    )
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement  [default: %(default)s]")
    parser.add_argument(
        "--soak", type=float, default=1200, help="seconds of the soak test in `memory`  [default: %(default)s]"
    )
    parser.add_argument("--dry", action="store_true", help="print the results without writing the page")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    bench = Bench(arguments.bench, arguments.home) if (arguments.home / "triton").is_dir() else None
    SCRATCH.mkdir(parents=True, exist_ok=True)
    setup = Setup(SCRATCH, arguments.seconds, bench, arguments.peers, arguments.soak)
    for name in arguments.sections or SECTIONS:
        print(f"{name} …", flush=True)
        rows = SECTIONS[name](setup)
        print("\n\n".join(page.render(name, rows, SCRATCH / "plots")), flush=True)
        if not arguments.dry:
            page.write(PAGE, name, describe(name, rows))


def describe(name: str, rows: list[Row]) -> dict[str, Any]:
    """The rows with what is needed to interpret and repeat them: date, machine, versions, command."""
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown CPU")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores of {model}",
        "versions": f"Python {platform.python_version()}, Ray {ray.__version__}, ONNX Runtime {onnxruntime.__version__}",
        "command": f"python -m benchmarks.run {name}",
        "rows": rows,
    }


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


if __name__ == "__main__":
    main()
