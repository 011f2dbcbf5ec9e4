"""Asks an Open Inference server for the metadata of its models once before a run, as perf_analyzer does."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from convoy.errors import ConfigError
from convoy.protos import open_inference_pb2
from convoy.wire.tensors import BYTES
from loadtest.plan import Payload, Plan, Target, Traffic
from loadtest.wire import direct

TIMEOUT_S = 10.0
TEXT_LENGTH = 500


@dataclass(frozen=True)
class Described:
    """A model's only input and its first output; -1 stands for any size."""

    tensor: str
    datatype: str
    shape: tuple[int, ...]
    output: str


def resolve(plan: Plan) -> Plan:
    """The plan with the tensor names, types and shapes that it leaves to the server. Raises ConfigError."""
    return replace(plan, traffic=tuple(resolve_traffic(plan.target, traffic) for traffic in plan.traffic))


def resolve_traffic(target: Target, traffic: Traffic) -> Traffic:
    """The traffic with what it leaves to the server. Raises ConfigError."""
    if target.protocol not in ("oip", "oip-json", "oip-raw", "grpc"):
        return traffic
    payload = traffic.payload
    if payload.tensor and (payload.shape or payload.kind != "tensor"):
        return traffic
    described = describe(target, traffic.model)
    wants_image = payload.kind != "tensor"
    if wants_image != (described.datatype == BYTES):
        raise ConfigError(
            f"{traffic.model} takes {described.datatype} {list(described.shape)}; "
            + ("send it --tensor payloads" if wants_image else "send it images")
        )
    inner = described.shape[1:]
    if not wants_image and not payload.shape and any(size < 0 for size in inner):
        raise ConfigError(f"{traffic.model} accepts any shape {list(inner)}; choose one with --shape")
    return replace(traffic, payload=_filled(payload, described), output=traffic.output or described.output)


def _filled(payload: Payload, described: Described) -> Payload:
    # An image input of shape [-1, 1] keeps its inner 1; an inner -1 becomes one image per row.
    inner = tuple(max(1, size) for size in described.shape[1:])
    datatype = payload.datatype if described.datatype == BYTES else described.datatype
    return replace(payload, tensor=payload.tensor or described.tensor, shape=payload.shape or inner, datatype=datatype)


def describe(target: Target, model: str) -> Described:
    """Reads a model's metadata. Raises ConfigError when the server does not answer or does not know the model."""
    document = _ask_grpc(target, model) if target.is_grpc else _ask_http(target, model)
    if len(document["inputs"]) != 1 or not document["outputs"]:
        raise ConfigError(f"{model} has {len(document['inputs'])} inputs; loadtest sends one")
    entry = document["inputs"][0]
    return Described(
        entry["name"], entry["datatype"], tuple(int(n) for n in entry["shape"]), document["outputs"][0]["name"]
    )


def _ask_http(target: Target, model: str) -> dict[str, Any]:
    url = f"{target.url.rstrip('/')}/v2/models/{quote(model, safe='')}"
    try:
        with direct.fetch(urllib.request.Request(url, headers=dict(target.headers)), timeout=TIMEOUT_S) as answer:
            document: dict[str, Any] = orjson.loads(answer.read())
            return document
    except urllib.error.HTTPError as error:
        text = error.read(TEXT_LENGTH).decode("utf-8", "replace")
        raise ConfigError(f"{target.url} does not describe {model}: HTTP {error.code} {text}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {url}: {error}") from error


def _ask_grpc(target: Target, model: str) -> dict[str, Any]:
    import grpc

    with grpc.insecure_channel(urlsplit(target.url).netloc, [direct.CHANNEL]) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            request_serializer=open_inference_pb2.ModelMetadataRequest.SerializeToString,
            response_deserializer=open_inference_pb2.ModelMetadataResponse.FromString,
        )
        try:
            message = call(open_inference_pb2.ModelMetadataRequest(name=model), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise ConfigError(f"{target.url} does not describe {model}: {error.details()}") from error
    sides = {"inputs": message.inputs, "outputs": message.outputs}
    return {
        side: [{"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)} for tensor in tensors]
        for side, tensors in sides.items()
    }
