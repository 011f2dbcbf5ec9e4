"""`python -m models.zoo.parity [NAME…]`: measures how much ONNX differs from torch, with random weights.

Each result is written immediately, so that an interrupted run can be continued.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path

import torch

from models.architectures.page import PARITY
from models.artifact import Preprocessing
from models.compile.export import export
from models.zoo.architecture import Architecture
from models.zoo.registry import ARCHITECTURES, find_architecture

BATCHES = (1, 3)

log = logging.getLogger("convoy.parity")


def measure(architecture: Architecture, seed: int = 0) -> float:
    """Exports to a temporary folder. Raises ArtifactError when the graphs differ by more than the tolerance."""
    torch.manual_seed(seed)
    channels, side, _ = architecture.input
    steps = Preprocessing(channels, side, side, (0.5,) * channels, (0.25,) * channels)
    with tempfile.TemporaryDirectory() as folder:
        parity = export(architecture.build(), steps, Path(folder), BATCHES)
    return float(parity["largest_relative_difference"])


def main() -> None:
    """Measures the architectures named on the command line and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m models.zoo.parity", description=__doc__)
    parser.add_argument("names", nargs="*", help="default: all architectures without a result")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    known: dict[str, float] = json.loads(PARITY.read_text())
    for name in arguments.names or [name for name in ARCHITECTURES if name not in known]:
        known[name] = float(f"{measure(find_architecture(name)):.1e}")
        PARITY.write_text(json.dumps({key: known[key] for key in ARCHITECTURES if key in known}, indent=1) + "\n")
        log.info("%s: %.1e", name, known[name])


if __name__ == "__main__":
    main()
