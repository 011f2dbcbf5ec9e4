"""Parameters and multiply-accumulates of an ONNX graph: of convolutions and of matrix products with weights."""

from __future__ import annotations

import math
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})


def count_onnx_params(graph: onnx.GraphProto) -> int:
    """Numbers in the graph's floating-point weights; statistics of batch norms that were not folded are among them."""
    return sum(math.prod(one.dims) for one in graph.initializer if one.data_type in FLOATS)


def count_onnx_macs(model: onnx.ModelProto) -> int:
    """For one image. The model's input must have a fixed shape, batch 1."""
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {value.name: _shape(value) for value in (*inferred.graph.value_info, *inferred.graph.output)}
    shapes |= {one.name: tuple(one.dims) for one in inferred.graph.initializer}
    shapes |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t).shape
        for node in inferred.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    return sum(_macs(node, shapes) for node in inferred.graph.node)


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Every element of the result is a product of as many weights as lead to one of its maps."""
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    weights, result = shapes.get(node.input[1], ()), shapes.get(node.output[0], ())
    if not weights or not result:
        return 0
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(weights[1:])
    return math.prod(result) * math.prod(weights) // result[-1]


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(one.dim_value for one in value.type.tensor_type.shape.dim)
