"""Small ONNX classifiers, right ones and wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
CLASSES = 4


def write_net(
    path: Path, *, shape: tuple[Any, ...] = ("n", 3, SIDE, SIDE), kind: int = TensorProto.FLOAT, opset: int = 17,
    softmax: bool = False, flatten: bool = True, fixed: bool = False, external: bool = False, second: bool = False,
    domain: str = "", operator: str = "Conv",
) -> Path:  # fmt: skip
    """Mean colour of each quadrant by four 4x4 filters at stride 4… then one linear layer over what they see."""
    generator = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "logits": generator.normal(size=(8, 3, 4, 4)).astype(np.float32),  # a name that Convoy's own graph has too
        "dense": generator.normal(size=(32, CLASSES)).astype(np.float32),
        "rows": np.array([1 if fixed else -1, 32], np.int64),
    }
    nodes = [
        helper.make_node(operator, ["image", "logits"], ["maps"], strides=[4, 4], domain=domain),
        helper.make_node("Reshape", ["maps", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"]))
    given = [helper.make_tensor_value_info("image", kind, shape)]
    if second:
        given.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"]))
    name = "probabilities" if softmax else "scores" if flatten else "maps"
    result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, key) for key, array in weights.items()]
    graph = helper.make_graph(nodes, "net", given, [result], constants)
    versions = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9)
    onnx.save_model(model, str(path), save_as_external_data=external, location="net.data", size_threshold=1024)
    return path
