"""What the server says of itself and its models, as documents that both protocols render."""

from __future__ import annotations

from typing import Any

import convoy
from convoy.wire import oip_metadata
from convoy.wire.oip_metadata import ModelInfo, ServerInfo, TensorInfo
from convoy.wire.tensors import BYTES, NAMES
from models.ensembles.views import count_looks
from serve.api.infer import OUTPUT
from serve.experiments.endpoint import ExperimentEndpoint
from serve.gateway.endpoints import ComposedEndpoint, Endpoint, ModelEndpoint

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
ENSEMBLE = "ensemble"
EXPERIMENT = "experiment"


def server() -> oip_metadata.Document:
    """Server metadata."""
    return oip_metadata.server_metadata(SERVER)


def model(endpoint: Endpoint) -> dict[str, Any]:
    """A model as people ask for it."""
    known = {"name": endpoint.name, "version": endpoint.version, "classes": len(endpoint.labels)}
    if isinstance(endpoint, ExperimentEndpoint):
        return _experiment(endpoint)
    if isinstance(endpoint, ComposedEndpoint):
        return known | _composed(endpoint)
    return known | _single(endpoint) if isinstance(endpoint, ModelEndpoint) else known


def _single(endpoint: ModelEndpoint) -> dict[str, Any]:
    manifest, steps = endpoint.manifest, endpoint.manifest.preprocessing
    facts = endpoint.executor.facts
    return {
        "architecture": manifest.architecture,
        "dataset": manifest.dataset,
        "input": [steps.size, steps.size, steps.channels],
        "params": manifest.params,
        "macs": manifest.macs,
        "accuracy": dict(manifest.accuracy),
        "placement": endpoint.config.placement,
        "engine": f"{facts.engine} {facts.version}",
        "precision": facts.precision,
        "engine_status": facts.status,
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


def _experiment(endpoint: ExperimentEndpoint) -> dict[str, Any]:
    """What its control is said to be, and the name behind each arm."""
    definition = endpoint.live.revision.definition
    control = model(endpoint.live.arms[definition.control.name])
    own = {"name": endpoint.name, "version": endpoint.version, "architecture": EXPERIMENT, "placement": EXPERIMENT}
    return control | own | {"arms": {arm.name: arm.model for arm in definition.arms}}


def wire_input(endpoint: Endpoint) -> TensorInfo:
    """The input that clients see: encoded images for an image endpoint, the tensor otherwise."""
    if endpoint.form == "image":
        return TensorInfo(endpoint.input.name, BYTES, (-1, 1))
    return TensorInfo(endpoint.input.name, NAMES[endpoint.input.dtype], tuple(endpoint.input.shape))


def info(endpoint: Endpoint) -> ModelInfo:
    """A model as the Open Inference Protocol describes it; what is made of others has Triton's platform for that."""
    facts = endpoint.executor.facts if isinstance(endpoint, ModelEndpoint) else None
    described = model(endpoint)
    return ModelInfo(
        name=endpoint.name,
        versions=(endpoint.version,),
        platform=facts.platform if facts else ENSEMBLE,
        backend=facts.engine if facts else "",
        inputs=(wire_input(endpoint),),
        outputs=(TensorInfo(OUTPUT, "FP32", (-1, len(endpoint.labels))),),
        max_batch=_max_batch(endpoint),
        properties={"architecture": described["architecture"], "dataset": described["dataset"]},
    )


def _max_batch(endpoint: Endpoint) -> int:
    """The batch limit; before the engine was first loaded and measured, the most that is configured."""
    if isinstance(endpoint, ModelEndpoint) and not endpoint.executor.measured:
        return endpoint.config.max_batch
    return endpoint.batcher.limits.batch
