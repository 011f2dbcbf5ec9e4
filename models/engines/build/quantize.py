"""Graph transformations, with the package onnx: folding of batch norm, fp16, and static int8 quantization (QDQ, per channel)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from onnxruntime.transformers.float16 import convert_float_to_float16

from convoy.errors import ArtifactError
from models.engines.backends.cpu import multiplies_int8
from models.engines.backends.onnxruntime import SILENT

Method = Literal["minmax", "percentile"]

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
PERCENTILE = 99.99
SYMMETRIC = {"ActivationSymmetric": True, "QuantizeBias": False}
LAYERS = ("Conv", "Gemm", "MatMul")
BATCH = 50


@dataclass(frozen=True)
class Quantization:
    """How ranges of activations are found, and whether the first and the last layer stay in floating point."""

    method: Method
    ends_in_floats: bool = False


class Batches(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Calibration data: inputs of the network, float32 [n, channels, side, side], in batches of BATCH."""

    def __init__(self, name: str, rows: NDArray[np.float32]) -> None:
        self._batches: Iterator[dict[str, Any]] = (
            {name: rows[start : start + BATCH]} for start in range(0, len(rows), BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def ladder(model: onnx.ModelProto) -> tuple[Quantization, ...]:
    """The quantizations to try, in this order. First and last layer stay in floats only if there are layers between them."""
    all_layers = (Quantization("minmax"), Quantization("percentile"))
    if len(_layers(model.graph)) < 3:
        return all_layers
    return *all_layers, Quantization("minmax", ends_in_floats=True), Quantization("percentile", ends_in_floats=True)


def fold(graph: Path, scratch: Path) -> onnx.ModelProto:
    """The graph with batch norm and constants folded, dead nodes removed, shapes inferred, and weights inside.

    `scratch` is a folder for intermediate files. Raises ArtifactError.
    """
    source, out = scratch / "whole.onnx", scratch / "folded.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )  # higher levels are for one CPU
    options.optimized_model_filepath = str(out)
    options.log_severity_level = SILENT
    onnx.save_model(_read(graph), str(source))
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"{graph} cannot be simplified: {error}; export the model again") from error
    model = onnx.shape_inference.infer_shapes(onnx.load(str(out)))
    add_pre_process_metadata(model)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"  # quantization refers to nodes by name
    return model


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and activations in fp16; inputs and outputs stay fp32."""
    half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return half


def quantize(
    model: onnx.ModelProto, rows: NDArray[np.float32], how: Quantization, scratch: Path, symmetric: bool = False
) -> onnx.ModelProto:
    """The model in int8: weights symmetric per channel, activations uint8, ranges calibrated on `rows`.

    With `symmetric`, activations are symmetric int8 and biases stay in floats, since TensorRT has no zero points. `rows` are
    float32 [n, channels, side, side]. Raises ArtifactError for a network without a layer that can be quantized.
    """
    out = scratch / "int8.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # quantize_static removes the weights from its argument
    with redirect_stdout(io.StringIO()):  # calibration prints
        quantize_static(
            copy,
            str(out),
            Batches(model.graph.input[0].name, rows),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not symmetric and not multiplies_int8(),
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[how.method],
            nodes_to_exclude=_ends(model.graph) if how.ends_in_floats else [],
            extra_options={"CalibPercentile": PERCENTILE, **(SYMMETRIC if symmetric else {})},
        )
    quantized = onnx.load(str(out))
    if not any(node.op_type == "DequantizeLinear" for node in quantized.graph.node):
        raise ArtifactError("no layer of this network can be quantized: stay with fp32")
    return quantized


def _read(graph: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(graph))
    except Exception as error:
        raise ArtifactError(
            f"{graph} cannot be read ({error}): import the model again, or copy its complete folder"
        ) from error


def _ends(graph: onnx.GraphProto) -> list[str]:
    layers = _layers(graph)
    return [layers[0], layers[-1]]


def _layers(graph: onnx.GraphProto) -> list[str]:
    return [node.name for node in graph.node if node.op_type in LAYERS]
