"""`python -m benchmarks.chaos`: injects all faults, or the named ones, under load, one after the other.

Each result is a file in runs/chaos. `--write` puts the results of these faults into docs/reliability.md; the rows of other faults
stay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.clock import wrong_clock
from benchmarks.chaos.faults import FAULTS, Fault
from benchmarks.chaos.judge import Result, judge
from benchmarks.chaos.machines import machines
from benchmarks.chaos.namespaces import isolated
from benchmarks.chaos.page import table
from benchmarks.chaos.stage import BEFORE_SECONDS, RATE, WARMUP_SECONDS, Stage, Watched, plan, stage
from benchmarks.marks import read_between, write_between

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "runs" / "chaos"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by python -m benchmarks.chaos --write -->", "<!-- end -->"
STAGES = {"machine": stage, "wrong clock": wrong_clock, "machines": machines}


def measure(fault: Fault, stage: Stage, rate: float) -> Result:
    """Measures one fault in a server whose processes are all healthy before and after it."""
    fault.prepare(stage)
    stage.until_healthy()
    load = Watched(plan(stage, fault.seconds, rate))
    load.wait(WARMUP_SECONDS + BEFORE_SECONDS)
    injected = load.now()
    with stage.after:
        try:
            fault.act(stage)
            recovery = load.now() - injected
        finally:
            run = load.finish()
    fault.check(stage)
    return judge(fault, run, injected, recovery)


def measure_all(faults: Sequence[Fault], rate: float) -> None:
    """Measures faults of one kind of stage, one after the other in the same server."""
    with (
        tempfile.TemporaryDirectory(prefix="convoy-chaos-") as folder,
        STAGES[faults[0].where](Path(folder)) as running,
    ):
        for fault in faults:
            path = RESULTS / f"{fault.name}.json"
            path.unlink(missing_ok=True)
            try:
                result = measure(fault, running, rate)
            except (ValueError, TimeoutError) as error:
                print(f"{fault.name}: not measured: {error}", flush=True)
                continue
            document = result.document() | {"day": time.strftime("%Y-%m-%d"), "cores": os.cpu_count()}
            path.write_text(json.dumps(document, indent=1))
            print(f"{fault.name}: {json.dumps(document)}", flush=True)


def measure_apart(faults: Sequence[Fault], rate: float) -> None:
    """Measures faults in a separate process; faults of several machines run in network namespaces."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.chaos",
        "--here",
        "--rate",
        str(rate),
        *(fault.name for fault in faults),
    ]
    if faults[0].where == "machines":
        command = isolated(*command)
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Injects faults under load and measures their effect on requests.")
    parser.add_argument("faults", nargs="*", help=f"{', '.join(fault.name for fault in FAULTS)}  [default: all]")
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second  [default: %(default)g]")
    parser.add_argument("--write", action="store_true", help="put the results into docs/reliability.md")
    parser.add_argument(
        "--page-only",
        action="store_true",
        help="measure nothing; put the results of earlier runs into docs/reliability.md",
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    known = {fault.name: fault for fault in FAULTS}
    if unknown := set(arguments.faults) - known.keys():
        parser.error(f"unknown fault: {', '.join(sorted(unknown))}")
    chosen = [known[name] for name in arguments.faults or known]
    RESULTS.mkdir(parents=True, exist_ok=True)
    for where in () if arguments.page_only else dict.fromkeys(fault.where for fault in chosen):
        run_faults = measure_all if arguments.here else measure_apart
        run_faults([fault for fault in chosen if fault.where == where], arguments.rate)
    if arguments.write or arguments.page_only:
        files = [path for path in RESULTS.glob("*.json") if path.stem in {fault.name for fault in chosen}]
        results = {path.stem: json.loads(path.read_text()) for path in files}
        write_between(PAGE, BEGIN, table(FAULTS, results, read_between(PAGE, BEGIN, END)), END)
    return 0


if __name__ == "__main__":  # each worker process of the load generator imports this module
    sys.exit(main())
