"""`python -m models.engines`: builds one engine at low priority, while the server continues to answer requests."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from convoy.engine_names import BACKENDS, PRECISIONS
from convoy.errors import ConvoyError
from models.artifact import Artifact
from models.engines.backends.registry import find_backend
from models.engines.build.builder import build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.spec import EngineSpec
from models.engines.store.store import open_store

NICENESS = 10


def main() -> int:
    """Exit status: 0 if the engine is in the store, else 1 with the reason and its remedy as the last line of stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m models.engines", description=__doc__, epilog="For interactive use, see: convoy compile --help"
    )
    parser.add_argument("artifact", type=Path, help="folder of the model's artifact")
    parser.add_argument("--engine", choices=BACKENDS, required=True, help="backend that runs the engine")
    parser.add_argument("--precision", choices=PRECISIONS, required=True, help="precision to build")
    parser.add_argument("--store", required=True, help="folder or URL of the engine store")
    options = parser.parse_args()
    os.nice(NICENESS)
    try:
        artifact = Artifact.load(options.artifact)
        backend = find_backend(options.engine)
        spec = EngineSpec(artifact, backend, options.precision, find_eval_source(artifact))
        build_engine(spec, open_store(options.store))
    except ConvoyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
