"""How graphs are written: what is large in `weights.bin` beside them."""

from __future__ import annotations

from pathlib import Path

import onnx

from models.artifact import WEIGHTS

EXTERNAL_FROM = 1024  # bytes


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Writes a graph and weights.bin, which is empty for a net so small that all of it is in the graph."""
    written = onnx.ModelProto()
    written.CopyFrom(model)  # saving takes the weights out of what is saved
    onnx.save_model(
        written,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=WEIGHTS,
        size_threshold=EXTERNAL_FROM,
    )
    (path.parent / WEIGHTS).touch()
