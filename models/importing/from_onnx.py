"""Imports ONNX files of other tools as artifacts and checks that outputs are unchanged. Needs no torch."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper

import convoy
from convoy.errors import ArtifactError, EngineFailed
from models.artifact import (
    IMAGE_MODEL,
    MANIFEST,
    TENSOR_MODEL,
    WEIGHTS,
    Artifact,
    Manifest,
    Preprocessing,
    file_hash,
)
from models.artifact_folder import new_artifact
from models.compile.description import Description, check_labels
from models.engines.backends.registry import load_engine
from models.engines.logits import logit_error
from models.graphs.graph_file import save_graph
from models.graphs.preprocessing_graph import add_preprocessing
from models.importing.onnx_counts import count_onnx_macs, count_onnx_params
from models.importing.onnx_reader import Network, read_network
from models.parity_inputs import check_answers, parity_images

BATCHES = (1, 3, 8)
TOLERANCE = 1e-4  # largest difference, relative to the largest logit
PREFIX = "net/"

Run = Callable[[NDArray[Any]], NDArray[np.float32]]


def import_onnx(name: str, file: Path, description: Description, out: Path) -> Artifact:
    """Checks a network and writes it to `out`, atomically. Raises ArtifactError."""
    network = read_network(file, description.size)
    steps = description.steps(network.channels, network.side)
    with new_artifact(out, network.files) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        original = _original(network, Path(scratch))
        first = original(np.zeros((1, network.channels, network.side, network.side), np.float32))
        check_answers(first.reshape(1, -1), "a tensor of zeros", str(file))
        labels = check_labels(description.labels, _classes(first, file))
        params, macs = count_onnx_params(network.model.graph), count_onnx_macs(_shaped(network, 1))
        _write_tensor(network, first, folder)
        add_preprocessing(steps, folder)
        manifest = Manifest(
            name=name,
            version="1",
            architecture="onnx",
            dataset="imported",
            labels=labels,
            preprocessing=steps,
            params=params,
            macs=macs,
            accuracy={"how": "not measured"},
            files={name: file_hash(folder / name) for name in (IMAGE_MODEL, TENSOR_MODEL, WEIGHTS)},
            parity=_compare(original, steps, folder, file),
            made={
                "by": f"convoy {convoy.__version__}",
                "onnx": onnx.__version__,
                "opset": network.opset,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            },
            source=f"imported from {file.name}",
            licence="not stated",
        )
        (folder / MANIFEST).write_text(manifest.to_json())
    return Artifact.load(out)


def _shaped(network: Network, batch: int | str) -> onnx.ModelProto:
    """The network with this batch size. Recorded inner shapes are dropped, because they are for another batch size."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    del graph.input[:], graph.output[:], graph.value_info[:]
    shape: list[str | int | None] = [batch, network.channels, network.side, network.side]
    graph.input.append(helper.make_tensor_value_info(network.input, TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info(network.output, TensorProto.FLOAT, None))
    return model


def _original(network: Network, folder: Path) -> Run:
    """A function that runs the original network image by image, because its batch size may be fixed at 1."""
    save_graph(_shaped(network, 1), folder / "model.onnx")
    engine = load_engine(folder / "model.onnx", 1)
    return lambda images: np.concatenate([engine.run(image[np.newaxis]) for image in images])


def _classes(first: NDArray[np.float32], file: Path) -> int:
    if first.ndim < 2 or first.size != first.shape[1]:
        raise ArtifactError(
            f"{file} has the output {list(first.shape)} for one image; a classifier has [1, classes]: cut it at its logits"
        )
    return int(first.shape[1])


def _write_tensor(network: Network, first: NDArray[np.float32], folder: Path) -> None:
    """Writes tensor.onnx and weights.bin. The network's names get a prefix, so that they cannot collide with ours."""
    model = compose.add_prefix(_shaped(network, "batch"), PREFIX)
    graph = model.graph
    network_nodes = list(graph.node)
    flat = "Identity" if first.ndim == 2 else "Flatten"
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.append(helper.make_node("Identity", ["input"], [PREFIX + network.input]))
    graph.node.extend(network_nodes)
    graph.node.append(helper.make_node(flat, [PREFIX + network.output], ["logits"]))
    shape: list[str | int | None] = ["batch", network.channels, network.side, network.side]
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", first.shape[1]]))
    save_graph(model, folder / TENSOR_MODEL)


def _compare(original: Run, steps: Preprocessing, folder: Path, file: Path) -> dict[str, Any]:
    """The largest difference of both graphs from the original, at several batch sizes, as a manifest's `parity`."""
    image_engine, tensor_engine = (load_engine(folder / name, 1) for name in (IMAGE_MODEL, TENSOR_MODEL))
    worst = 0.0
    for description, images in parity_images(steps, BATCHES):
        rows = ((images / 255 - np.array(steps.mean)) / steps.std).astype(np.float32).transpose(0, 3, 1, 2).copy()
        reference = original(rows).reshape(len(images), -1)
        check_answers(reference, description, str(file))
        try:
            results = [image_engine.run(images), tensor_engine.run(rows)]
        except EngineFailed as error:
            raise ArtifactError(
                f"{file} runs for one image but not for {len(images)}: export it with a dynamic batch"
            ) from error
        worst = max(worst, *(_difference(logits, reference, file) for logits in results))
    if not worst <= TOLERANCE:
        raise ArtifactError(
            f"{file} gives other logits in a batch than alone, by {worst:.2g} of the largest one; {TOLERANCE} is allowed"
        )
    return {"largest_relative_difference": worst, "batches": list(BATCHES), "tolerance": TOLERANCE}


def _difference(logits: NDArray[np.float32], reference: NDArray[np.float32], file: Path) -> float:
    if logits.shape != reference.shape:
        raise ArtifactError(
            f"{file} has the output {list(logits.shape)} for {len(reference)} images: its graph fixes the batch size; "
            "export it with a dynamic batch"
        )
    return logit_error(reference, logits)
