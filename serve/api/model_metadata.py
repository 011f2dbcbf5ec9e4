"""Metadata of the server and its models, as documents that both protocols render."""

from __future__ import annotations

from typing import Any

import convoy
from convoy.wire import oip_metadata
from convoy.wire.oip_metadata import ModelInfo, ServerInfo, TensorInfo
from convoy.wire.tensors import BYTES, NAMES
from serve.api.infer import OUTPUT
from serve.gateway.endpoints import Endpoint

SERVER = ServerInfo(
    name="convoy",
    version=convoy.__version__,
    extensions=(
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "schedule_policy",
        "statistics",
    ),
)


def server() -> oip_metadata.Document:
    """Server metadata."""
    return oip_metadata.server_metadata(SERVER)


def model(endpoint: Endpoint) -> dict[str, Any]:
    """The description of a model in `/v1/models`."""
    return endpoint.describe()


def wire_input(endpoint: Endpoint) -> TensorInfo:
    """The input that clients see: encoded images for an image endpoint, the tensor otherwise."""
    if endpoint.form == "image":
        return TensorInfo(endpoint.input.name, BYTES, (-1, 1))
    return TensorInfo(endpoint.input.name, NAMES[endpoint.input.dtype], tuple(endpoint.input.shape))


def info(endpoint: Endpoint) -> ModelInfo:
    """A model as the Open Inference Protocol describes it."""
    described = endpoint.describe()
    return ModelInfo(
        name=endpoint.name,
        versions=(endpoint.version,),
        platform=endpoint.platform,
        backend=endpoint.backend,
        inputs=(wire_input(endpoint),),
        outputs=(TensorInfo(OUTPUT, "FP32", (-1, len(endpoint.labels))),),
        max_batch=endpoint.max_batch,
        properties={"architecture": described["architecture"], "dataset": described["dataset"]},
    )
