"""convoy.v1.Classifier: classification over gRPC, one request at a time or a stream of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from convoy.errors import ConvoyError
from convoy.protos import classifier_pb2 as pb
from convoy.protos import classifier_pb2_grpc
from serve.api.answer_energy import answer_energy
from serve.api.classification import Classes, best_classes
from serve.api.classify_params import DEFAULTS, ClassifyParams, parse_params
from serve.gateway.dataplane import check_images
from serve.gateway.endpoints import Endpoint
from serve.grpc.caller import CallContext
from serve.grpc.calls import Calls, Context, abort, aborts, parsed, pipelined
from serve.grpc.message_fields import bounded
from serve.telemetry.request_timings import stages_ms


class ClassifierServicer(classifier_pb2_grpc.ClassifierServicer):
    """Answers as the classify path over HTTP does."""

    def __init__(self, calls: Calls, most_fields: int) -> None:
        """`most_fields`: of a message, see `serve.grpc.message_fields`."""
        self._calls = calls
        self._message = bounded(pb.ClassifyRequest, most_fields)
        self._plane = calls.plane

    @aborts
    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:  # noqa: N802
        """Classifies the images of one request."""
        return await self._classify(request, context)

    async def classify_bytes(self, message: bytes, context: CallContext) -> bytes:
        """As Classify, from bytes to bytes. Raises ConvoyError."""
        response = await self._classify(parsed(self._message(message)), context)
        return response.SerializeToString()

    async def ClassifyStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ClassifyRequest | ConvoyError], context: Context
    ) -> AsyncIterator[pb.ClassifyResponse]:
        """Classifies a stream of requests, answered in their order; an error ends its request, not the stream."""

        async def answer(request: pb.ClassifyRequest | ConvoyError) -> pb.ClassifyResponse:
            if isinstance(request, ConvoyError):
                return pb.ClassifyResponse(error=str(request))
            try:
                return await self._classify(request, context)
            except ConvoyError as error:
                return pb.ClassifyResponse(id=request.id, model=request.model, error=str(error))

        try:
            self._calls.check_key(context)
        except ConvoyError as error:
            await abort(context, error)
        async for response in pipelined(request_iterator, answer):
            yield response

    async def _classify(self, request: pb.ClassifyRequest, context: CallContext) -> pb.ClassifyResponse:
        calls, plane = self._calls, self._plane
        with calls.call(request.model, request.version, context) as (endpoint, request_context):
            timings = request_context.timings
            timings.received = timings.started
            options = _options(request)
            request_context.request_id = options.id or plane.new_id()
            request_context.priority = request.priority
            check_images(endpoint, len(request.images))
            answers = await endpoint.answer(request_context, partial(plane.classify, images=list(request.images)))
            return pb.ClassifyResponse(
                id=request_context.request_id,
                model=endpoint.name,
                version=endpoint.version,
                predictions=[_prediction(endpoint, options, classes) for classes in best_classes(answers, options)],
                timings_ms=pb.ClassifyResponse.Timings(**stages_ms(timings, time.monotonic())),
                batch_size=timings.batch_size,
                cached=timings.cached,
                arm=timings.arm,
                members=[pb.ClassifyResponse.Member(**member.document()) for member in answers[0].members],
                **(answer_energy(endpoint, answers, timings) if options.energy else {}),
            )


def _options(request: pb.ClassifyRequest) -> ClassifyParams:
    if not (request.top_k or request.id or request.threshold or request.indices_only or request.energy):
        return DEFAULTS
    fields: dict[str, Any] = {
        "threshold": request.threshold,
        "labels": not request.indices_only,
        "energy": request.energy,
    }
    if request.top_k:
        fields["top_k"] = request.top_k
    if request.id:
        fields["id"] = request.id
    return parse_params(fields)


def _prediction(endpoint: Endpoint, options: ClassifyParams, classes: Classes) -> pb.ClassifyResponse.Prediction:
    labels, make_class = endpoint.labels, pb.ClassifyResponse.Class
    return pb.ClassifyResponse.Prediction(
        classes=[
            make_class(index=index, label=labels[index] if options.labels else "", probability=probability)
            for index, probability in zip(*classes, strict=True)
        ]
    )
