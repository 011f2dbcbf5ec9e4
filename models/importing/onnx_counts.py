"""Counts parameters, and multiply-accumulates (MACs) of convolutions and matrix products, of an ONNX graph."""

from __future__ import annotations

import math
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})


def count_onnx_params(graph: onnx.GraphProto) -> int:
    """Elements of the floating-point weights, including statistics of batch norms that are not folded."""
    return sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in FLOATS)


def count_onnx_macs(model: onnx.ModelProto) -> int:
    """MACs for one image. The model's input must have a fixed shape with batch 1."""
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {value.name: _shape(value) for value in (*inferred.graph.value_info, *inferred.graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    shapes |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t).shape
        for node in inferred.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    return sum(_macs(node, shapes) for node in inferred.graph.node)


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """MACs of a node: elements of its result times the weights that contribute to each element."""
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    weights, result = shapes.get(node.input[1], ()), shapes.get(node.output[0], ())
    if not weights or not result:
        return 0
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(weights[1:])
    return math.prod(result) * math.prod(weights) // result[-1]


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
