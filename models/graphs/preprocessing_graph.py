"""Adds preprocessing to a graph: makes the image form of an artifact from its tensor form. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from models.artifact import IMAGE_MODEL, TENSOR_MODEL, Preprocessing


def add_preprocessing(steps: Preprocessing, folder: Path, cast_first: bool = False) -> None:
    """Writes image.onnx next to tensor.onnx, with UINT8 NHWC images as input; both share the same weights.

    Pixels are transposed before the cast to floats, because they then take a quarter of the memory. With `cast_first` they are
    cast first: TensorRT supports no other operation on UINT8.
    """
    model = onnx.load(str(folder / TENSOR_MODEL), load_external_data=False)
    graph = model.graph
    scale = [1 / (255 * std) for std in steps.std]
    shift = [-mean / std for mean, std in zip(steps.mean, steps.std, strict=True)]
    per_channel = [1, steps.channels, 1, 1]
    pad = [0, 0, steps.pad, steps.pad] * 2
    constants = [
        helper.make_tensor("image_scale", TensorProto.FLOAT, per_channel, scale),
        helper.make_tensor("image_shift", TensorProto.FLOAT, per_channel, shift),
        *([helper.make_tensor("image_pad", TensorProto.INT64, [8], pad)] if steps.pad else []),
    ]
    nodes = [
        *_planes_of_floats(cast_first),
        *([helper.make_node("Pad", ["image_float", "image_pad"], ["image_padded"])] if steps.pad else []),
        helper.make_node("Mul", ["image_padded" if steps.pad else "image_float", "image_scale"], ["image_scaled"]),
        helper.make_node("Add", ["image_scaled", "image_shift"], ["input"]),
    ]
    shape: list[str | int | None] = ["batch", steps.size, steps.size, steps.channels]
    network = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *network])
    graph.initializer.extend(constants)
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, shape))
    onnx.save_model(model, str(folder / IMAGE_MODEL))


def _planes_of_floats(cast_first: bool) -> list[onnx.NodeProto]:
    steps: list[tuple[str, dict[str, Any]]] = [
        ("Transpose", {"perm": [0, 3, 1, 2]}),
        ("Cast", {"to": TensorProto.FLOAT}),
    ]
    (first, how), (second, then) = reversed(steps) if cast_first else steps
    return [
        helper.make_node(first, ["image"], ["image_moved"], **how),
        helper.make_node(second, ["image_moved"], ["image_float"], **then),
    ]
