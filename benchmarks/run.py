"""`python -m benchmarks.run [SECTION…]`: measures the data plane and writes docs/performance.md.

Peers run if `python -m benchmarks.peers.install` made their environments; the others are left out. Needs wrk and h2load. Nothing
else should run on the machine.
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

from benchmarks import (
    cold_start,
    comparison,
    event_loop,
    mlperf,
    overload,
    page,
    precision,
    pressure,
    protocols,
    sections,
)
from benchmarks.peers.contenders import installed
from benchmarks.peers.install import HOME, PEERS
from benchmarks.sections import Row, Setup

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
SCRATCH = Path(tempfile.gettempdir()) / "convoy-benchmarks"

SECTIONS: dict[str, Callable[[Setup], list[Row]]] = {
    function.__name__: function
    for function in (
        comparison.lenet5_images,
        comparison.lenet5_tensors,
        comparison.lenet5_grpc,
        protocols.protocols,
        comparison.resnet18_images,
        comparison.resnet18_tensors,
        comparison.resnet18_grpc,
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
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}  [default: all]")
    parser.add_argument("--home", type=Path, default=HOME, help="folder of the peers  [default: %(default)s]")
    parser.add_argument("--peers", default=" ".join(PEERS), help="peers to run  [default: %(default)s]")
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement  [default: %(default)s]")
    parser.add_argument(
        "--soak", type=float, default=1200, help="seconds of the soak test in `memory`  [default: %(default)s]"
    )
    parser.add_argument("--dry", action="store_true", help="print the results without writing the page")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"unknown section {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    setup = Setup(SCRATCH, arguments.seconds, arguments.home, arguments.peers.split(), arguments.soak)
    if absent := [name for name in setup.peers if not installed(setup.home, name)]:
        print(f"not installed, left out: {', '.join(absent)}", flush=True)
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
