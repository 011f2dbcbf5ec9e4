"""Small models for tests, whose answers are known. They can be made slow or faulty."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from models.artifact import IMAGE_MODEL, MANIFEST, TENSOR_MODEL, Manifest, Preprocessing, file_hash

SIDE = 8
CLASSES = 4
POISON = 255  # a faulty model fails on a batch with a pixel of this value


def write_artifact(
    folder: Path,
    name: str,
    *,
    loops: int = 0,
    faulty: bool = False,
    convolution: bool = False,
    nan_from: float | None = None,
) -> Path:
    """Writes a classifier of grey 8x8 images. The class is the quadrant with the largest mean.

    `loops`: iterations of useless work per run. `faulty`: a run fails on a pixel of POISON. `convolution`: computes the means
    by a convolution, else by pooling. `nan_from`: the logits are NaN for images with a pixel of this value (0..1) or more.
    """
    folder.mkdir(parents=True)
    for file, image in ((IMAGE_MODEL, True), (TENSOR_MODEL, False)):
        onnx.save_model(_model(image, loops, faulty, convolution, nan_from), str(folder / file))
    manifest = Manifest(
        name=name,
        version="1",
        architecture="quadrants",
        dataset="none",
        labels=("top left", "top right", "bottom left", "bottom right"),
        preprocessing=Preprocessing(1, SIDE, SIDE, (0.0,), (1.0,)),
        params=0,
        macs=0,
        accuracy={},
        files={file: file_hash(folder / file) for file in (IMAGE_MODEL, TENSOR_MODEL)},
        parity={},
        made={},
        source="tests",
        licence="Apache-2.0",
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder


def garble(folder: Path) -> None:
    """Replaces the graph by bytes that no engine can load. The manifest has their hash, so the file passes verification."""
    (folder / IMAGE_MODEL).write_bytes(b"no graph")
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    files = {**manifest.files, IMAGE_MODEL: file_hash(folder / IMAGE_MODEL)}
    (folder / MANIFEST).write_text(replace(manifest, files=files).to_json())


def quadrant_image(bright: int, value: int = 200) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """A UINT8 image [8, 8] with one bright quadrant."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    half = SIDE // 2
    row, column = divmod(bright, 2)
    image[row * half : (row + 1) * half, column * half : (column + 1) * half] = value
    return image


def quadrant_png(bright: int, value: int = 200) -> bytes:
    """`quadrant_image` as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(quadrant_image(bright, value)).save(stream, "PNG")
    return stream.getvalue()


def _model(image: bool, loops: int, faulty: bool, convolution: bool, nan_from: float | None) -> onnx.ModelProto:
    nodes, source = [], "input"
    if image:
        scale = numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")
        nodes += [
            helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["input"]),
        ]
        graph_input = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])
    else:
        scale = numpy_helper.from_array(np.array(1.0, np.float32), "scale")
        graph_input = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])
    constants = [scale]
    if faulty:
        trap_nodes, trap_constants = _trap()
        nodes += trap_nodes
        constants += trap_constants
        source = "survived"
    if loops:
        constants.append(numpy_helper.from_array(np.array(loops, np.int64), "loops"))
        nodes.append(_burn(source))
        source = "burnt"
    half = [SIDE // 2] * 2
    if convolution:
        constants.append(numpy_helper.from_array(np.full((1, 1, *half), 1 / 16, np.float32), "filter"))
        nodes.append(helper.make_node("Conv", [source, "filter"], ["means"], strides=half))
    else:
        nodes.append(helper.make_node("AveragePool", [source], ["means"], kernel_shape=half, strides=half))
    nodes.append(helper.make_node("Flatten", ["means"], ["logits" if nan_from is None else "sums"]))
    if nan_from is not None:
        nodes += [
            helper.make_node("ReduceMax", ["input"], ["brightest"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Flatten", ["brightest"], ["bright"]),
            helper.make_node("Less", ["bright", "bound"], ["answered"]),
            helper.make_node("Where", ["answered", "sums", "no_number"], ["logits"]),
        ]
        constants.append(numpy_helper.from_array(np.array(nan_from, np.float32), "bound"))
        constants.append(numpy_helper.from_array(np.array(np.nan, np.float32), "no_number"))
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "quadrants", [graph_input], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _trap() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Gathers index max(pixel) from a table of POISON elements: out of range, hence an error, exactly at POISON."""
    constants = [
        numpy_helper.from_array(np.zeros(POISON, np.float32), "table"),
        numpy_helper.from_array(np.array(255.0, np.float32), "full"),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "full"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["nothing"]),
        helper.make_node("Add", ["input", "nothing"], ["survived"]),
    ]
    return nodes, constants


def _burn(source: str) -> onnx.NodeProto:
    """A loop that multiplies the input by one; the constant `loops` is its number of iterations."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still_going"]),
            helper.make_node("Mul", ["state", "one"], ["next_state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, None),
        ],
        [
            numpy_helper.from_array(np.array(1.0, np.float32), "one"),
        ],
    )
    return helper.make_node("Loop", ["loops", "", source], ["burnt"], body=body)
