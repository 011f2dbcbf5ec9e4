"""`python -m convoy.protos.generate`: generates the modules again, from the .proto files in this folder."""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

FOLDER = Path(__file__).parent


def generate(out: Path) -> None:
    """Writes the modules of every .proto into `out`/convoy/protos. Raises RuntimeError when protoc fails."""
    files = [f"convoy/protos/{path.name}" for path in sorted(FOLDER.glob("*.proto"))]
    root = FOLDER.parent.parent
    arguments = ["protoc", f"-I{root}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", *files]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed")


if __name__ == "__main__":
    generate(FOLDER.parent.parent)
    sys.exit(0)
