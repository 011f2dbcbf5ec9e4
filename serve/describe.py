"""What the server says of itself and its models, as documents that both protocols render."""

from __future__ import annotations

from typing import Any

import convoy
from convoy.tensors import BYTES, NAMES
from models.ensembles.views import count_looks
from serve.catalog import ComposedEndpoint, Endpoint, ModelEndpoint
from serve.infer import OUTPUT

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration"]
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
ENSEMBLE = "ensemble"
# Names in Triton's model configuration, and their numbers on gRPC.
CONFIG_TYPES = {BYTES: ("TYPE_STRING", 13), "UINT8": ("TYPE_UINT8", 2), "FP32": ("TYPE_FP32", 11)}


def server() -> dict[str, Any]:
    """Server metadata."""
    return {"name": "convoy", "version": convoy.__version__, "extensions": EXTENSIONS}


def model(endpoint: Endpoint) -> dict[str, Any]:
    """A model as people ask for it."""
    known = {"name": endpoint.name, "version": endpoint.version, "classes": len(endpoint.labels)}
    if isinstance(endpoint, ComposedEndpoint):
        return known | _composed(endpoint)
    return known | _single(endpoint) if isinstance(endpoint, ModelEndpoint) else known


def _single(endpoint: ModelEndpoint) -> dict[str, Any]:
    manifest, steps = endpoint.manifest, endpoint.manifest.preprocessing
    return {
        "architecture": manifest.architecture,
        "dataset": manifest.dataset,
        "input": [steps.size, steps.size, steps.channels],
        "params": manifest.params,
        "macs": manifest.macs,
        "accuracy": dict(manifest.accuracy),
        "placement": endpoint.config.placement,
        "source": manifest.source,
        "licence": manifest.licence,
    }


def _composed(endpoint: ComposedEndpoint) -> dict[str, Any]:
    """`params` counts each member once; `macs` are those of an image that every member looks at."""
    manifests = {member.name: member.manifest for member in endpoint.members}
    voters = [member for _, stage in endpoint.stages for member in stage.members]
    return {
        "architecture": endpoint.config.kind,
        "dataset": ", ".join(dict.fromkeys(manifest.dataset for manifest in manifests.values())),
        "members": list(manifests),
        "params": sum(manifest.params for manifest in manifests.values()),
        "macs": sum(count_looks(one.views) * manifests[one.model].macs for one in voters),
        "accuracy": {},
        "placement": endpoint.config.kind,
    }


def wire_input(endpoint: Endpoint) -> tuple[str, list[int]]:
    """Datatype and shape of the input that clients see: encoded images for an image endpoint, the tensor otherwise."""
    if endpoint.form == "image":
        return BYTES, [-1, 1]
    return NAMES[endpoint.input.dtype], list(endpoint.input.shape)


def platform(endpoint: Endpoint) -> str:
    """Triton's word for what runs the model."""
    return PLATFORM if isinstance(endpoint, ModelEndpoint) else ENSEMBLE


def metadata(endpoint: Endpoint) -> dict[str, Any]:
    """Open Inference Protocol model metadata."""
    datatype, shape = wire_input(endpoint)
    return {
        "name": endpoint.name,
        "versions": [endpoint.version],
        "platform": platform(endpoint),
        "inputs": [{"name": endpoint.input.name, "datatype": datatype, "shape": shape}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(endpoint.labels)]}],
    }


def config(endpoint: Endpoint) -> dict[str, Any]:
    """Triton's model configuration, as far as its tools read it; dims are without the batch dimension."""
    datatype, shape = wire_input(endpoint)
    return {
        "name": endpoint.name,
        "platform": platform(endpoint),
        "backend": BACKEND if isinstance(endpoint, ModelEndpoint) else "",
        "max_batch_size": endpoint.batcher.limits.batch,
        "input": [{"name": endpoint.input.name, "data_type": CONFIG_TYPES[datatype][0], "dims": shape[1:]}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [len(endpoint.labels)]}],
        "dynamic_batching": {"preferred_batch_size": [endpoint.batcher.limits.batch]},
    }
