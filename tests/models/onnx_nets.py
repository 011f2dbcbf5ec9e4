"""Small ONNX classifiers, valid and invalid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
CLASSES = 4
ALL: dict[str, Any] = {"axes": [1, 2, 3], "keepdims": 1}
PIXELS = {
    "": [],
    "spread": [
        helper.make_node("ReduceMean", ["image"], ["mean"], **ALL),
        helper.make_node("Sub", ["image", "mean"], ["centred"]),
        helper.make_node("Abs", ["centred"], ["distances"]),
        helper.make_node("ReduceMean", ["distances"], ["spread"], **ALL),
        helper.make_node("Div", ["centred", "spread"], ["pixels"]),
    ],
    "glare": [
        helper.make_node("Neg", ["image"], ["negative"]),
        helper.make_node("Exp", ["zero"], ["one"]),
        helper.make_node("Add", ["negative", "one"], ["less"]),
        helper.make_node("ReduceMean", ["less"], ["mean"], **ALL),
        helper.make_node("Sqrt", ["mean"], ["glare"]),
        helper.make_node("Mul", ["image", "glare"], ["pixels"]),
    ],
}


def write_net(
    path: Path, *, shape: tuple[Any, ...] = ("n", 3, SIDE, SIDE), kind: int = TensorProto.FLOAT, opset: int = 17,
    softmax: bool = False, flatten: bool = True, fixed: bool = False, external: bool = False, second: bool = False,
    domain: str = "", operator: str = "Conv", weight: float | None = None, mask: float | None = None,
    hidden: float | None = None, pixels: str = "", root: bool = False,
) -> Path:  # fmt: skip
    """A network of eight 4x4 filters at stride 4 and a linear layer. Writes it to `path`, and returns that.

    These options add values that are not finite: one `weight` of the linear layer; a `mask` on the second class; a `hidden`
    constant without effect on the answer; a square `root` of negative numbers; `pixels` divided by their "spread" (0/0 if all
    are equal) or multiplied by their "glare" (the square root of 1 minus their mean).
    """
    generator = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "logits": generator.normal(size=(8, 3, 4, 4)).astype(
            np.float32
        ),  # a name that also occurs in Convoy's own graph
        "dense": generator.normal(size=(32, CLASSES)).astype(np.float32),
        "rows": np.array([1 if fixed else -1, 32], np.int64),
        **({"zero": np.zeros(1, np.float32)} if pixels == "glare" else {}),
    }
    nodes = [
        *PIXELS[pixels],
        helper.make_node(
            operator, ["pixels" if pixels else "image", "logits"], ["maps"], strides=[4, 4], domain=domain
        ),
        helper.make_node("Reshape", ["maps", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"]),
    ]
    if root:
        nodes[-1:] = [
            helper.make_node("MatMul", ["flat", "dense"], ["squares"]),
            helper.make_node("Sqrt", ["squares"], ["scores"]),
        ]
    if mask is not None:
        nodes[-1].output[0] = "unmasked"
        nodes.append(helper.make_node("Add", ["unmasked", "mask"], ["scores"]))
        weights["mask"] = np.array([0, mask, 0, 0], np.float32)
    if weight is not None:
        weights["dense"][0, 0] = weight
    if hidden is not None:
        value = numpy_helper.from_array(np.array([1.0, hidden], np.float32))
        nodes.insert(0, helper.make_node("Constant", [], ["hidden"], value=value))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"]))
    inputs = [helper.make_tensor_value_info("image", kind, shape)]
    if second:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"]))
    name = "probabilities" if softmax else "scores" if flatten else "maps"
    result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, key) for key, array in weights.items()]
    graph = helper.make_graph(nodes, "net", inputs, [result], constants)
    versions = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9)
    onnx.save_model(model, str(path), save_as_external_data=external, location="net.data", size_threshold=1024)
    return path
