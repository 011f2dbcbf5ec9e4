"""The gRPC listener of the echo server."""

from __future__ import annotations

from typing import Any

import grpc.aio

from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.wire.oip_grpc import parse_message, render_message
from convoy.wire.oip_http import InferResponse
from tests.loadtest.echo_server import Refuse, behaviour, class_of, logits, metadata


async def grpc_infer(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    message = open_inference_pb2.ModelInferRequest.FromString(data)
    await guarded(message.model_name, context)
    request = parse_message(message)
    answer = InferResponse(message.model_name, "1", request.id, (logits(request.inputs[0]),))
    return render_message(answer).SerializeToString()


async def grpc_classify(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    message = classifier_pb2.ClassifyRequest.FromString(data)
    await guarded(message.model, context)
    answer = classifier_pb2.ClassifyResponse(id="0", model=message.model)
    for image in message.images:
        answer.predictions.add().classes.add(index=class_of(image), label=f"class{class_of(image)}", probability=0.9)
    answer.timings_ms.run = 2.0
    return answer.SerializeToString()


async def grpc_metadata(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    model = open_inference_pb2.ModelMetadataRequest.FromString(data).name
    document = metadata(model)
    answer = open_inference_pb2.ModelMetadataResponse(name=model)
    for side in ("inputs", "outputs"):
        getattr(answer, side).add(**document[side][0])
    return answer.SerializeToString()


async def guarded(model: str, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    codes = {503: grpc.StatusCode.RESOURCE_EXHAUSTED, 404: grpc.StatusCode.NOT_FOUND}
    try:
        await behaviour.before(model)
    except Refuse as refusal:
        await context.abort(codes[refusal.status], refusal.text)


def grpc_server() -> grpc.aio.Server:
    server = grpc.aio.server()

    def handlers(**methods: Any) -> dict[str, Any]:
        return {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}

    infer = handlers(ModelInfer=grpc_infer, ModelMetadata=grpc_metadata)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("inference.GRPCInferenceService", infer),
            grpc.method_handlers_generic_handler("convoy.v1.Classifier", handlers(Classify=grpc_classify)),
        )
    )
    return server
