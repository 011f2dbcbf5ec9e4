"""Exports a trained network to the two ONNX graphs of an artifact and checks them against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convoy.errors import ArtifactError
from models.artifact import IMAGE_MODEL, TENSOR_MODEL, Preprocessing
from models.engines.backends.registry import load_engine
from models.engines.backends.torch_reference import TorchEngine, to_input
from models.engines.logits import logit_error
from models.graphs.graph_file import save_graph
from models.graphs.preprocessing_graph import add_preprocessing
from models.parity_inputs import check_answers, parity_images
from models.zoo.lenet import LeNet5

OPSET = 20
PARITY_BATCHES = (1, 3, 8)  # other sizes than the batch of 2 that the export traces
TOLERANCE = 1e-4  # largest difference, relative to the largest logit


def export(
    net: nn.Module, steps: Preprocessing, folder: Path, batches: tuple[int, ...] = PARITY_BATCHES
) -> dict[str, Any]:
    """Writes tensor.onnx, image.onnx and weights.bin into `folder` and returns their parity with torch.

    Raises ArtifactError when a graph's logits differ from torch's.
    """
    net = net.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if isinstance(net, LeNet5):
        net = net.for_export()
    side = steps.size + 2 * steps.pad
    _export_tensor(net, (steps.channels, side, side), folder)
    add_preprocessing(steps, folder)
    return check_parity(net, steps, folder, batches)


def _export_tensor(net: nn.Module, shape: tuple[int, int, int], folder: Path) -> None:
    program = torch.onnx.export(
        net,
        (torch.zeros(2, *shape),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        optimize=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.doc_string = ""
    _forget_origin(model.graph)
    save_graph(model, folder / TENSOR_MODEL)


def _forget_origin(graph: Any) -> None:
    """Removes the exporter's metadata: stack traces with paths of the build machine."""
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


def check_parity(
    net: nn.Module, steps: Preprocessing, folder: Path, batches: tuple[int, ...] = PARITY_BATCHES
) -> dict[str, Any]:
    """Largest difference of both graphs' logits from torch's, relative to the largest logit. Raises ArtifactError."""
    image_engine, tensor_engine = (load_engine(folder / name, 1) for name in (IMAGE_MODEL, TENSOR_MODEL))
    torch_engine = TorchEngine(net, steps, "image")
    worst = 0.0
    for description, images in parity_images(steps, batches):
        reference = torch_engine.run(images)
        check_answers(reference, description, "the network")
        for logits in (image_engine.run(images), tensor_engine.run(to_input(images, steps).numpy())):
            worst = max(worst, _difference(logits, reference))
    if not worst <= TOLERANCE:
        raise ArtifactError(f"the graphs differ from torch by {worst:.2g} of the largest logit; {TOLERANCE} is allowed")
    return {"largest_relative_difference": worst, "batches": list(batches), "tolerance": TOLERANCE}


def _difference(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    if logits.shape != reference.shape:
        raise ArtifactError(f"the graph's output has the shape {logits.shape}, torch's {reference.shape}")
    return logit_error(reference, logits)
