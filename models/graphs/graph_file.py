"""Writes ONNX graphs, with large tensors in `weights.bin` in the same folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from models.artifact import WEIGHTS

EXTERNAL_FROM = 1024  # bytes


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Writes a graph and weights.bin, which is empty if all tensors are small enough to be in the graph.

    onnx's `save_as_external_data` is not used: it refuses to write when the working directory has a file of that name.
    """
    written = onnx.ModelProto()
    written.CopyFrom(model)  # saving removes the weights from the saved object
    for tensor in _weights(written.graph):
        if len(tensor.raw_data) >= EXTERNAL_FROM:
            set_external_data(tensor, WEIGHTS)
    onnx.save_model(written, str(path))
    (path.parent / WEIGHTS).touch()


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Weights of the graph and of subgraphs in its nodes."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (attribute.g, *attribute.graphs):
            yield from _weights(inner)
