"""`python -m tests.fuzz [images|requests] [--seconds 300] [--seed N]`: damaged images and nearly valid requests, outside CI.

`images` decodes damaged images in every way. Finds unexpected exceptions, crashes of a decoder's C code, hangs, and excessive
use of memory or CPU time. Writes the image of each finding to a file: add it to tests/models/images/hostile with the fix.
`requests` sends requests to a gateway over HTTP and gRPC, made by a grammar of each API. Finds answers and log records of
unexpected errors. Writes each request: add it to the tests of its parser with the fix. Exits with 1 if there are findings.
"""

from __future__ import annotations

import argparse
import inspect
import secrets
import sys
from pathlib import Path

from tests.fuzz.hunt import Findings, hunt
from tests.fuzz.requests import hunt_requests


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("what", nargs="?", choices=("images", "requests"), default="images")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeats a run  [default: random]")
    parser.add_argument(
        "--findings", type=Path, default=Path("runs/fuzz"), help="folder for findings  [default: runs/fuzz]"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.seconds:g} s", flush=True)
    findings = Findings(arguments.findings)
    total = (hunt if arguments.what == "images" else hunt_requests)(arguments.seed, arguments.seconds, findings)
    print(f"{total:,} {arguments.what}, {len(findings.kinds)} findings", flush=True)
    return 1 if findings.kinds else 0


if __name__ == "__main__":
    sys.exit(main())
