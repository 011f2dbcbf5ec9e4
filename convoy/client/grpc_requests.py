"""Messages to a server over gRPC and what its answers mean, apart from who sends them: shared by both gRPC transports."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from convoy.client.http_requests import RETRY_AFTER
from convoy.client.requests import Question
from convoy.client.responses import Document, unreadable
from convoy.errors import ConvoyError, InvalidInput, error_of, seconds
from convoy.protos import classifier_pb2
from convoy.proxies import is_local
from convoy.wire.oip_http import InferResponse

MAX_MESSAGE = 128 * 2**20
SIZES = (("grpc.max_send_message_length", MAX_MESSAGE), ("grpc.max_receive_message_length", MAX_MESSAGE))


def channel_options(target: str) -> list[tuple[str, int]]:
    """Options of a channel to HOST:PORT; proxies of the environment are for servers elsewhere."""
    return [*SIZES, ("grpc.enable_http_proxy", int(not is_local(f"grpc://{target}")))]


def classify_message(question: Question) -> classifier_pb2.ClassifyRequest:
    return classifier_pb2.ClassifyRequest(
        model=question.model,
        version=question.version,
        images=question.images,
        top_k=question.top_k,
        threshold=question.threshold,
        indices_only=not question.labels,
        priority=question.priority,
        energy=question.energy,
        id=question.id,
    )


def document_of(message: Any) -> Document:
    """A message as the document that HTTP would answer."""
    document: Document = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def infer_response_of(server: str, message: Any) -> InferResponse:
    """Raises ConvoyError when the message holds no tensors."""
    from convoy.wire.oip_grpc import parse_response_message

    try:
        return parse_response_message(message)
    except InvalidInput as error:
        raise unreadable(server, error) from error


def summary_of(metadata: Any) -> Document:
    """A model of `/v1/models` from its ModelMetadataResponse."""
    return {
        "name": metadata.name,
        "version": metadata.versions[-1],
        "dataset": metadata.properties.get("dataset", ""),
        "classes": metadata.outputs[0].shape[-1],
    }


def takes_images(metadata: Any) -> bool:
    return bool(metadata.inputs[0].datatype == "BYTES")


def failure_of(error: grpc.RpcError) -> ConvoyError:
    """The error that a status was."""
    trailing: Any = error.trailing_metadata() or ()
    retry_after = next((value for key, value in trailing if key == RETRY_AFTER), None)
    return error_of("grpc_code", error.code().name, error.details() or "", seconds(retry_after))
