"""Reads ONNX files of other tools. Networks that cannot be served are refused with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from convoy.errors import ArtifactError
from models.parity_inputs import check_weights

OLDEST_OPSET = 7  # the first with NumPy's broadcasting, which the preprocessing needs
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})  # operators that ONNX Runtime implements
OWN_DOMAINS = frozenset({"", "ai.onnx"})
PIXELS = (1, 3)  # channels
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
IMAGE_RANK = 4


@dataclass(frozen=True)
class Network:
    """A graph from images [batch, channels, side, side] in FP32 to logits."""

    model: onnx.ModelProto
    input: str
    output: str
    channels: int
    side: int
    opset: int
    files: tuple[Path, ...]  # the ONNX file, and the files of its external weights


def read_network(path: Path, side: int | None) -> Network:
    """Reads a network. `side` is the side of its images, if the file leaves that open. Raises ArtifactError."""
    model, files = _read(path)
    opset = _check_operators(model, path)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for tensor in _float_tensors(nodes, model.graph.initializer):
        check_weights(tensor.name or "a constant", numpy_helper.to_array(tensor), str(path))
    source = _only("input", _inputs(model.graph), path)
    result = _only("output", list(model.graph.output), path)
    channels, side = _check_input(source, side, path)
    _check_float(result, "output", path)
    return Network(model, source.name, _before_softmax(model.graph, result.name), channels, side, opset, files)


def _read(path: Path) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
    """The graph with its weights, and the files that it was read from. Raises ArtifactError."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ArtifactError(
            f"{path} is not an ONNX file or is truncated ({type(error).__name__}): export or copy it again"
        ) from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is not an ONNX file or is truncated (it holds no graph): export or copy it again")
    external = _external_files(model.graph)
    missing = [name for name in external if not (path.parent / name).is_file()]
    if missing:
        raise ArtifactError(
            f"{path} keeps its weights in {', '.join(missing)}, which is not in {path.parent}: copy it there"
        )
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ArtifactError(f"the weights of {path} cannot be read, export or copy them again: {error}") from error
    return model, (path, *(path.parent / name for name in external))


def _external_files(graph: onnx.GraphProto) -> list[str]:
    tensors = [tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    locations = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return sorted(locations)


def _float_tensors(nodes: Iterable[onnx.NodeProto], weights: Iterable[onnx.TensorProto]) -> Iterator[onnx.TensorProto]:
    """Floating-point weights, and constants in nodes and in their subgraphs."""
    yield from (tensor for tensor in weights if tensor.data_type in FLOATS)
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.t.data_type in FLOATS:
            yield attribute.t
        for inner in (attribute.g, *attribute.graphs):
            yield from _float_tensors(inner.node, inner.initializer)


def _check_operators(model: onnx.ModelProto, path: Path) -> int:
    """The opset version of ONNX's own operators. Raises ArtifactError for operators that cannot run."""
    own = {function.domain for function in model.functions}
    versions = {opset.domain: opset.version for opset in model.opset_import}
    unknown = sorted(set(versions) - DOMAINS - own)
    used = {node.domain for node in model.graph.node}
    if foreign := [domain for domain in unknown if domain in used]:
        raise ArtifactError(f"{path} uses operators of {', '.join(foreign)}, which ONNX Runtime does not have")
    known = {function.name for function in model.functions}
    undefined = {node.op_type for node in model.graph.node if node.domain in OWN_DOMAINS and not _is_known(node)}
    if undefined - known:
        raise ArtifactError(
            f"{path} uses {', '.join(sorted(undefined - known))}, which ONNX does not have: export the network with its operators"
        )
    opset = versions.get("", versions.get("ai.onnx", 0))
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ArtifactError(
            f"{path} is of opset {opset}; {OLDEST_OPSET} to {newest} can be served: "
            "export it again with opset_version=20, or convert it with onnx.version_converter"
        )
    return opset


def _is_known(node: onnx.NodeProto) -> bool:
    return bool(onnx.defs.has(node.op_type))


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The graph's inputs without the weights, which old files list as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _only(role: str, values: Sequence[onnx.ValueInfoProto], path: Path) -> onnx.ValueInfoProto:
    """The only input or output. Raises ArtifactError if there are several or none."""
    if len(values) != 1:
        names = ", ".join(value.name for value in values) or "none"
        raise ArtifactError(
            f"{path} has {len(values)} {role}s ({names}); a classifier has one {role}: export only that"
        )
    return values[0]


def _check_float(value: onnx.ValueInfoProto, role: str, path: Path) -> None:
    kind = value.type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind)
        raise ArtifactError(f"the {role} {value.name} of {path} is {name}; export the network with a FLOAT {role}")


def _check_input(value: onnx.ValueInfoProto, side: int | None, path: Path) -> tuple[int, int]:
    """Channels and side of the images. Raises ArtifactError for another kind of input."""
    _check_float(value, "input", path)
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
    text = "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
    where = f"the input {value.name} {text} of {path}"
    if len(shape) != IMAGE_RANK:
        raise ArtifactError(f"{where} has rank {len(shape)}; images are [batch, channels, height, width], rank 4")
    batch, channels, height, width = shape
    if channels not in PIXELS:
        hint = " (it looks like [batch, height, width, channels]: transpose it)" if width in PIXELS else ""
        raise ArtifactError(f"{where} does not have 1 or 3 channels as second dimension{hint}")
    if batch not in (None, 1):
        raise ArtifactError(f"{where} has a batch fixed at {batch}; export it with a dynamic batch")
    if (height or width) is None and side is None:
        raise ArtifactError(f"{where} leaves height and width open; set the side of its images with --size")
    height, width = height or width or side, width or height or side
    if height != width:
        raise ArtifactError(f"{where} is not square; Convoy crops squares")
    assert channels is not None
    assert height is not None
    return channels, height


def _before_softmax(graph: onnx.GraphProto, output: str) -> str:
    """The logits' name, where the graph ends with a softmax: the server computes probabilities itself."""
    producer: Any = next((node for node in graph.node if output in node.output), None)
    return str(producer.input[0]) if producer is not None and producer.op_type == "Softmax" else output
