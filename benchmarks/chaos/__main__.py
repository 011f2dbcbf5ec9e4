"""`python -m benchmarks.chaos`: every fault under load, one after the other, or those that are named.

Results are kept in runs/chaos, a file each; `--write` puts those of the named faults into docs/reliability.md, where the
rows of the others stay.
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
KEPT = ROOT / "runs" / "chaos"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by python -m benchmarks.chaos --write -->", "<!-- end -->"


STAGES = {"machine": stage, "wrong clock": wrong_clock, "machines": machines}


def measure(fault: Fault, stage: Stage, rate: float) -> Result:
    """One fault, in a server that is whole before and after."""
    fault.prepare(stage)
    stage.until_whole()
    load = Watched(plan(stage, fault.seconds, rate))
    load.wait(WARMUP_SECONDS + BEFORE_SECONDS)
    at = load.now()
    with stage.after:
        try:
            fault.act(stage)
            back = load.now() - at
        finally:
            run = load.finish()
    fault.check(stage)
    return judge(fault, run, at, back)


def measure_all(faults: Sequence[Fault], rate: float) -> None:
    """Faults of one place, in one server after the other."""
    with tempfile.TemporaryDirectory(prefix="convoy-chaos-") as folder, STAGES[faults[0].where](Path(folder)) as one:
        for fault in faults:
            path = KEPT / f"{fault.name}.json"
            path.unlink(missing_ok=True)
            try:
                result = measure(fault, one, rate)
            except (ValueError, TimeoutError) as error:
                print(f"{fault.name}: not measured: {error}", flush=True)
                continue
            told = result.document() | {"day": time.strftime("%Y-%m-%d"), "cores": os.cpu_count()}
            path.write_text(json.dumps(told, indent=1))
            print(f"{fault.name}: {json.dumps(told)}", flush=True)


def measure_apart(faults: Sequence[Fault], rate: float) -> None:
    """Runs the faults in a separate process, which keeps its results; several machines in their own network namespaces."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--here", "--rate", str(rate), *(one.name for one in faults)]
    whole = isolated(*command) if faults[0].where == "machines" else command
    subprocess.run(whole, cwd=ROOT, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="faults under load")
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(one.name for one in FAULTS)}; none: all")
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    parser.add_argument("--page-only", action="store_true", help="measure nothing, write what was measured")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    known = {fault.name: fault for fault in FAULTS}
    if unknown := set(arguments.faults) - known.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    asked = [known[name] for name in arguments.faults or known]
    KEPT.mkdir(parents=True, exist_ok=True)
    for where in () if arguments.page_only else dict.fromkeys(fault.where for fault in asked):
        measured = measure_all if arguments.here else measure_apart
        measured([fault for fault in asked if fault.where == where], arguments.rate)
    if arguments.write or arguments.page_only:
        files = [path for path in KEPT.glob("*.json") if path.stem in {fault.name for fault in asked}]
        results = {path.stem: json.loads(path.read_text()) for path in files}
        write_between(PAGE, BEGIN, table(FAULTS, results, read_between(PAGE, BEGIN, END)), END)
    return 0


if __name__ == "__main__":  # each worker of the load imports this module anew
    sys.exit(main())
