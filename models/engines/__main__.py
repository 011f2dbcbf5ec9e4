"""`python -m models.engines`: builds one engine at low priority, for a server that answers meanwhile."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from convoy.errors import ConvoyError
from models.artifact import Artifact
from models.engines.backends.registry import BACKENDS, PRECISIONS, find_backend
from models.engines.build.builder import build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.spec import EngineSpec
from models.engines.store.store import open_store

NICENESS = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m models.engines", description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--engine", choices=BACKENDS, required=True)
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    parser.add_argument("--store", required=True)
    said = parser.parse_args()
    os.nice(NICENESS)
    try:
        artifact = Artifact.load(said.artifact)
        order = EngineSpec(artifact, find_backend(said.engine), said.precision, find_eval_source(artifact))
        build_engine(order, open_store(said.store))
    except ConvoyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
