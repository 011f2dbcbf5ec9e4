"""`python -m benchmarks.chaos`: every fault under load, one after the other, or those that are named.

Results are kept in runs/chaos, a file each; `--write` puts them all into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.chaos.faults import FAULTS, Fault
from benchmarks.chaos.judge import Result, judge
from benchmarks.chaos.page import table
from benchmarks.chaos.stage import BEFORE_SECONDS, RATE, WARMUP_SECONDS, Stage, Watched, plan, stage
from benchmarks.marks import write_between

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "runs" / "chaos"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by python -m benchmarks.chaos --write -->", "<!-- end -->"


def measure(fault: Fault, stage: Stage, rate: float) -> Result:
    """One fault, in a server that is whole before and after."""
    stage.until_whole()
    load = Watched(plan(stage, fault.seconds, rate))
    load.wait(WARMUP_SECONDS + BEFORE_SECONDS)
    at = load.now()
    with stage.after:
        fault.act(stage)
        back = load.now() - at
        run = load.finish()
    return judge(fault, run, at, back)


def measure_all(faults: Iterable[Fault], rate: float) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="convoy-chaos-") as folder, stage(Path(folder)) as one:
        for fault in faults:
            try:
                result = measure(fault, one, rate)
            except ValueError as error:
                print(f"{fault.name}: not measured: {error}", flush=True)
                continue
            told = result.document() | {"day": time.strftime("%Y-%m-%d"), "cores": os.cpu_count()}
            (KEPT / f"{fault.name}.json").write_text(json.dumps(told, indent=1))
            print(f"{fault.name}: {json.dumps(told)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="faults under load")
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(one.name for one in FAULTS)}; none: all")
    parser.add_argument("--rate", type=float, default=RATE, help="requests per second")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    parser.add_argument("--page-only", action="store_true", help="measure nothing, write what was measured")
    arguments = parser.parse_args()
    known = {fault.name: fault for fault in FAULTS}
    if unknown := set(arguments.faults) - known.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if not arguments.page_only:
        measure_all([known[name] for name in arguments.faults or known], arguments.rate)
    if arguments.write or arguments.page_only:
        results = {path.stem: json.loads(path.read_text()) for path in KEPT.glob("*.json")}
        write_between(PAGE, BEGIN, table(FAULTS, results), END)
    return 0


if __name__ == "__main__":  # each worker of the load imports this module anew
    sys.exit(main())
