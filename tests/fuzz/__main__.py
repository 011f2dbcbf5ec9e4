"""`python -m tests.fuzz [--seconds 300] [--seed N]`: decodes damaged images in every way, outside CI.

Finds unexpected exceptions, crashes of a decoder's C code, hangs, and excessive use of memory or CPU time. Writes the image of
each finding to a file: add it to tests/models/images/hostile with the fix. Exits with 1 if there are findings.
"""

from __future__ import annotations

import argparse
import inspect
import secrets
import sys
from pathlib import Path

from tests.fuzz.hunt import Findings, hunt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument(
        "--seed", type=int, default=secrets.randbits(32), help="repeats the images of a run  [default: random]"
    )
    parser.add_argument(
        "--findings", type=Path, default=Path("runs/fuzz"), help="folder for findings  [default: runs/fuzz]"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.seconds:g} s", flush=True)
    findings = Findings(arguments.findings)
    total = hunt(arguments.seed, arguments.seconds, findings)
    print(f"{total:,} damaged images, {len(findings.kinds)} findings", flush=True)
    return 1 if findings.kinds else 0


if __name__ == "__main__":
    sys.exit(main())
