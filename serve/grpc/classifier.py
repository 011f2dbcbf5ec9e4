"""convoy.v1.Classifier: classification over gRPC, one request at a time or a stream of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from convoy.errors import ConvoyError
from convoy.protos import classifier_pb2 as pb
from convoy.protos import classifier_pb2_grpc
from serve.api.answer_energy import answer_energy
from serve.api.classification import Classes, best_classes
from serve.api.classify_params import ClassifyParams, parse_params
from serve.experiments.endpoint import ExperimentEndpoint
from serve.gateway.dataplane import Terms, check_images
from serve.gateway.endpoints import Endpoint
from serve.grpc.caller import grpc_caller
from serve.grpc.calls import Calls, Context, abort, aborts, pipelined
from serve.telemetry.request_timings import timings


class ClassifierServicer(classifier_pb2_grpc.ClassifierServicer):
    """Equal in every answer to the classify path over HTTP."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._plane = calls.plane

    @aborts
    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:  # noqa: N802
        return await self._classify(request, context)

    async def ClassifyStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ClassifyRequest | ConvoyError], context: Context
    ) -> AsyncIterator[pb.ClassifyResponse]:
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

    async def _classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        calls, plane = self._calls, self._plane
        with calls.call(request.model, request.version, context) as (endpoint, trace, watch):
            trace.received = trace.started
            options = _options(request)
            trace.id = options.id or plane.new_id()
            deadline = plane.terms(trace.started, context.time_remaining()).deadline
            check_images(endpoint, len(request.images))
            images, terms = list(request.images), Terms(deadline, request.priority)
            if isinstance(endpoint, ExperimentEndpoint):
                caller = grpc_caller(context, trace.id, {})
                answers = await endpoint.live.classify(plane, images, caller, terms, trace, watch)
            else:
                answers = await plane.classify(endpoint, images, terms, trace, watch)
            return pb.ClassifyResponse(
                id=trace.id,
                model=endpoint.name,
                version=endpoint.version,
                predictions=[_prediction(endpoint, options, classes) for classes in best_classes(answers, options)],
                timings_ms=pb.ClassifyResponse.Timings(**timings(trace, calls.clock())),
                batch_size=trace.batch_size,
                cached=trace.cached,
                arm=trace.arm,
                members=[pb.ClassifyResponse.Member(**part.document()) for part in answers[0].members],
                **(answer_energy(endpoint, answers, trace) if options.energy else {}),
            )


def _options(request: pb.ClassifyRequest) -> ClassifyParams:
    asked: dict[str, Any] = {
        "threshold": request.threshold,
        "labels": not request.indices_only,
        "energy": request.energy,
    }
    if request.top_k:
        asked["top_k"] = request.top_k
    if request.id:
        asked["id"] = request.id
    return parse_params(asked)


def _prediction(endpoint: Endpoint, options: ClassifyParams, classes: Classes) -> pb.ClassifyResponse.Prediction:
    labels = endpoint.labels
    of = pb.ClassifyResponse.Class
    return pb.ClassifyResponse.Prediction(
        classes=[
            of(index=index, label=labels[index] if options.labels else "", probability=probability)
            for index, probability in zip(*classes, strict=True)
        ]
    )
