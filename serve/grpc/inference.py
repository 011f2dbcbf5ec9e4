"""The Open Inference Protocol over gRPC (inference.GRPCInferenceService)."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TypeVar

import numpy as np

from convoy.errors import ConvoyError, NotReady
from convoy.protos import open_inference_pb2 as pb
from convoy.protos import open_inference_pb2_grpc
from convoy.wire import oip_metadata
from convoy.wire.oip_grpc import parse_message, render_bytes, render_message
from convoy.wire.oip_http import MAX_TENSORS, InferRequest, InferResponse
from convoy.wire.oip_metadata import to_message
from convoy.wire.tensors import BYTES, NAMES, PIECE
from models.images.headers import PNG_SIGNATURE
from serve.api import model_metadata
from serve.api.infer import apply_parameters, check_input, has_shape, infer, infer_plain
from serve.api.model_statistics import statistics
from serve.config.schema import Settings
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import Endpoint, Work
from serve.gateway.repository import Repository, check_load, check_unload
from serve.grpc.caller import CallContext
from serve.grpc.calls import Calls, Context, abort, aborts, parsed, pipelined
from serve.grpc.direct import (
    GLANCE,
    IMAGE_BYTES,
    DirectCall,
    DirectImageCall,
    DirectInferCall,
    MessagePlans,
    image_in,
    plain_input,
    single_image,
)
from serve.grpc.hot_calls import HotCalls
from serve.grpc.message_fields import bounded

Change = pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest

WANTS_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"


Rendered = TypeVar("Rendered")


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """inference.GRPCInferenceService."""

    def __init__(self, calls: Calls, repository: Repository, settings: Settings, most_fields: int) -> None:
        """`most_fields`: of a message, see `serve.grpc.message_fields`."""
        self._calls = calls
        self._plane = calls.plane
        self._repository = repository
        self._pages = settings.node_dir / "metrics"
        self._plans = MessagePlans(calls.plane)
        self._message = bounded(pb.ModelInferRequest, most_fields)

    @aborts
    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        """Runs a model on tensors or encoded images."""
        return await self._infer(request, context, render_message)

    async def infer_bytes(self, message: bytes, context: CallContext) -> bytes:
        """As ModelInfer, from bytes to bytes. Raises ConvoyError."""
        request = parsed(self._message(message))
        response = await self._infer(request, context, render_bytes)
        self._plans.learn(message, request)
        return response

    def direct(self, calls: HotCalls, number: int, message: bytes, context: CallContext) -> DirectCall | None:
        """A ModelInfer call that needs no coroutine, not yet started; None for all others."""
        plan = self._plans.find(message)
        if plan is not None:
            return DirectInferCall(self._calls.requests, plan, message, calls, number, context)
        if len(message) > IMAGE_BYTES or PNG_SIGNATURE not in message[:GLANCE]:
            return None
        request = self._message(message)
        if isinstance(request, ConvoyError):
            return None
        image = image_in(self._plane, request)
        if image is None:
            return None
        return DirectImageCall(self._calls.requests, image, request.id, calls, number, context)

    async def ModelStreamInfer(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ModelInferRequest | ConvoyError], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Runs a stream of requests, answered in their order; an error ends its request, not the stream."""

        async def answer(request: pb.ModelInferRequest | ConvoyError) -> pb.ModelStreamInferResponse:
            if isinstance(request, ConvoyError):
                return pb.ModelStreamInferResponse(error_message=str(request))
            try:
                response = await self._infer(request, context, render_message)
            except ConvoyError as error:
                failed = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
                return pb.ModelStreamInferResponse(error_message=str(error), infer_response=failed)
            if WANTS_FINAL in request.parameters and request.parameters[WANTS_FINAL].bool_param:
                response.parameters[FINAL].bool_param = True  # each request has exactly one response
            return pb.ModelStreamInferResponse(infer_response=response)

        try:
            self._calls.check_key(context)
        except ConvoyError as error:
            await abort(context, error)
        async for response in pipelined(request_iterator, answer):
            yield response

    async def _infer(
        self, request: pb.ModelInferRequest, context: CallContext, render: Callable[[InferResponse], Rendered]
    ) -> Rendered:
        with self._calls.call(request.model_name, request.model_version, context) as (endpoint, request_context):
            request_context.request_id = request.id
            work = _plain_work(self._plane, request, endpoint)
            if work is not None:
                request_context.timings.received = time.monotonic()
                return render(await infer_plain(endpoint, request_context, request.id, work))
            request_tensors = await _parse(request, endpoint)
            request_context.timings.received = time.monotonic()
            apply_parameters(self._plane, request_context, request_tensors)
            return render(await infer(self._plane, endpoint, request_context, request_tensors))

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=not self._plane.draining)

    @aborts
    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        with self._calls.question(context):
            return to_message(model_metadata.server(), pb.ServerMetadataResponse())

    @aborts
    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        with self._calls.question(context, request.name):
            try:
                endpoint = self._plane.find(request.name, request.version)
            except NotReady:  # clients expect a negative answer, not an error; RepositoryIndex gives the reason
                return pb.ModelReadyResponse(ready=False)
            return pb.ModelReadyResponse(ready=not endpoint.trouble)

    @aborts
    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        with self._calls.question(context, request.name):
            endpoint = self._plane.find(request.name, request.version)
            return to_message(oip_metadata.model_metadata(model_metadata.info(endpoint)), pb.ModelMetadataResponse())

    @aborts
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:  # noqa: N802
        with self._calls.question(context, request.name):
            endpoint = self._plane.find(request.name, request.version)
            config = to_message(oip_metadata.model_config(model_metadata.info(endpoint)), pb.ModelConfig())
            return pb.ModelConfigResponse(config=config)

    @aborts
    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        with self._calls.question(context, request.name) as holder:
            if holder is not None and not request.name:
                holder.check_admin()
            document = await statistics(self._plane, self._pages, request.name, request.version)
            return to_message(document, pb.ModelStatisticsResponse())

    @aborts
    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        with self._calls.question(context) as holder:
            entries = self._repository.index(request.ready)
            visible = [entry for entry in entries if holder is None or holder.may_call(entry.name)]
            return to_message({"models": oip_metadata.repository_index(visible)}, pb.RepositoryIndexResponse())

    @aborts
    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        self._calls.check_change(context)
        name = named(request)
        check_load(parameters_of(request))
        await self._repository.load(name)
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    @aborts
    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        self._calls.check_change(context)
        name = named(request)
        check_unload(parameters_of(request))
        await self._repository.unload(name)
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)


def _plain_work(plane: DataPlane, request: pb.ModelInferRequest, endpoint: Endpoint) -> Work | None:
    """Runs the tensor of a request that has nothing else, checked in one visit; None for any other and any faulty request.

    Those are read by `parse_message`, which names their faults.
    """
    entry = plain_input(request, endpoint)
    if entry is None:
        return None
    if entry.datatype == BYTES:
        image = single_image(entry, request, endpoint)
        return None if image is None else partial(plane.classify, images=(image,))
    raw, spec, shape = request.raw_input_contents[0], endpoint.input, tuple(entry.shape)
    fits = entry.datatype == NAMES[spec.dtype] != "BOOL" and has_shape(shape, spec.shape)
    if fits and shape[0] <= endpoint.most_images and len(raw) == math.prod(shape) * spec.dtype.itemsize:
        return partial(plane.run, rows=np.frombuffer(raw, spec.dtype).reshape(shape))
    return None


async def _parse(request: pb.ModelInferRequest, endpoint: Endpoint) -> InferRequest:
    """The request. Long typed contents are read on a thread, value by value. Raises InvalidInput or TooLarge."""
    check = partial(check_input, endpoint)
    if not request.raw_input_contents and _typed_values(request) > PIECE:
        return await asyncio.to_thread(parse_message, request, check)
    return parse_message(request, check)


def _typed_values(request: pb.ModelInferRequest) -> int:
    return sum(len(values) for tensor in request.inputs[:MAX_TENSORS] for _, values in tensor.contents.ListFields())


def named(request: Change) -> str:
    """The model of a load or unload: field 2 in Triton's form of the message, field 1 in KServe's."""
    return request.model_name or request.repository_name


def parameters_of(request: Change) -> dict[str, object]:
    """The parameters of a load or unload as plain values."""
    return {
        key: getattr(parameter, parameter.WhichOneof("parameter_choice") or "", None)
        for key, parameter in request.parameters.items()
    }
