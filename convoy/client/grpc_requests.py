"""gRPC messages and the meaning of responses, shared by the blocking and the asyncio transport."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from convoy.client.http_requests import RETRY_AFTER
from convoy.client.requests import ClassifyRequest
from convoy.client.responses import Document, unreadable
from convoy.errors import ConvoyError, InvalidInput, error_of, seconds
from convoy.protos import classifier_pb2
from convoy.proxies import is_local
from convoy.wire.oip_http import InferResponse

MAX_MESSAGE = 128 * 2**20
SIZES = (("grpc.max_send_message_length", MAX_MESSAGE), ("grpc.max_receive_message_length", MAX_MESSAGE))


def channel_options(target: str) -> list[tuple[str, int]]:
    """Options of a channel to HOST:PORT; a server on this machine is reached without the environment's proxy."""
    return [*SIZES, ("grpc.enable_http_proxy", int(not is_local(f"grpc://{target}")))]


def classify_message(request: ClassifyRequest) -> classifier_pb2.ClassifyRequest:
    """A classify request as a message of `classifier.proto`."""
    return classifier_pb2.ClassifyRequest(
        model=request.model,
        version=request.version,
        images=request.images,
        top_k=request.top_k,
        threshold=request.threshold,
        indices_only=not request.labels,
        priority=request.priority,
        energy=request.energy,
        id=request.id,
    )


def document_of(message: Any) -> Document:
    """Converts a message to the document that the server sends over HTTP."""
    document: Document = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def infer_response_of(server: str, message: Any) -> InferResponse:
    """The tensors of a response. Raises ConvoyError when it cannot be parsed."""
    from convoy.wire.oip_grpc import parse_response_message

    try:
        return parse_response_message(message)
    except InvalidInput as error:
        raise unreadable(server, error) from error


def summary_of(metadata: Any) -> Document:
    """A model's entry of `/v1/models`, from its ModelMetadataResponse."""
    return {
        "name": metadata.name,
        "version": metadata.versions[-1],
        "dataset": metadata.properties.get("dataset", ""),
        "classes": metadata.outputs[0].shape[-1],
    }


def takes_images(metadata: Any) -> bool:
    """Whether a ModelMetadataResponse is that of a model for encoded images."""
    return bool(metadata.inputs[0].datatype == "BYTES")


def failure_of(error: grpc.RpcError) -> ConvoyError:
    """Converts a gRPC status to an error of `convoy.errors`."""
    trailing: Any = error.trailing_metadata() or ()
    retry_after = next((value for key, value in trailing if key == RETRY_AFTER), None)
    return error_of("grpc_code", error.code().name, error.details() or "", seconds(retry_after))
