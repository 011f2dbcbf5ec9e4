"""What the server says of itself and its models, as documents that both protocols render."""

from __future__ import annotations

from typing import Any

import convoy
from convoy import metadata
from convoy.metadata import ModelInfo, ServerInfo, TensorInfo
from convoy.tensors import BYTES, NAMES
from serve.catalog import Endpoint
from serve.infer import OUTPUT

SERVER = ServerInfo(
    name="convoy",
    version=convoy.__version__,
    extensions=(
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "model_repository(unload_dependents)",
        "schedule_policy",
        "statistics",
    ),
)
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


def server() -> metadata.Document:
    """Server metadata."""
    return metadata.server_metadata(SERVER)


def model(endpoint: Endpoint) -> dict[str, Any]:
    """A model as people ask for it."""
    manifest, steps = endpoint.manifest, endpoint.manifest.preprocessing
    return {
        "name": endpoint.name,
        "version": endpoint.version,
        "architecture": manifest.architecture,
        "dataset": manifest.dataset,
        "classes": len(manifest.labels),
        "input": [steps.size, steps.size, steps.channels],
        "params": manifest.params,
        "macs": manifest.macs,
        "accuracy": dict(manifest.accuracy),
        "placement": endpoint.config.placement,
        "source": manifest.source,
        "licence": manifest.licence,
    }


def wire_input(endpoint: Endpoint) -> TensorInfo:
    """The input that clients see: encoded images for an image endpoint, the tensor otherwise."""
    if endpoint.form == "image":
        return TensorInfo(endpoint.input.name, BYTES, (-1, 1))
    return TensorInfo(endpoint.input.name, NAMES[endpoint.input.dtype], tuple(endpoint.input.shape))


def info(endpoint: Endpoint) -> ModelInfo:
    """A model as the Open Inference Protocol describes it."""
    return ModelInfo(
        name=endpoint.name,
        versions=(endpoint.version,),
        platform=PLATFORM,
        backend=BACKEND,
        inputs=(wire_input(endpoint),),
        outputs=(TensorInfo(OUTPUT, "FP32", (-1, len(endpoint.manifest.labels))),),
        max_batch=endpoint.batcher.limits.batch,
        properties={"architecture": endpoint.manifest.architecture, "dataset": endpoint.manifest.dataset},
    )
