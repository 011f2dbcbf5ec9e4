"""The gRPC listener: both services on one port, on pygrpc-native's server or on grpcio's own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pygrpc_native.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from convoy.errors import Cancelled, ConfigError, ConvoyError
from convoy.open_inference_grpc import parse_message, render_message
from convoy.protos import classifier_pb2 as classifier
from convoy.protos import classifier_pb2_grpc, experiments_pb2_grpc, open_inference_pb2_grpc
from convoy.protos import open_inference_pb2 as pb
from serve import describe
from serve.callers import arm_metadata, grpc_caller
from serve.catalog import Endpoint
from serve.config import GrpcServer, Settings
from serve.dataplane import DataPlane, Terms, Trace, Watch
from serve.experiments.gateway import Experiments
from serve.experiments.grpc_feedback import FeedbackServicer
from serve.http_answers import timings, top_classes
from serve.http_body import DEFAULT_TOP_K
from serve.infer import infer, request_terms
from serve.metrics import IN_FLIGHT, Metrics

Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger("convoy.grpc")


class Calls:
    """What every hot call shares: counting, tracing, and errors as status codes."""

    def __init__(self, plane: DataPlane, metrics: Metrics) -> None:
        self.plane = plane
        self.clock = time.monotonic
        self._in_flight = metrics.values(IN_FLIGHT, protocol="grpc")

    @asynccontextmanager
    async def call(self, name: str, version: str, context: Context) -> AsyncIterator[tuple[Endpoint, Trace, Watch]]:
        """A call from its first line to its answer. Errors of ours end it with their status."""
        trace, watch = Trace(self.clock()), Watch()
        endpoint: Endpoint | None = None
        code = "OK"
        self._in_flight[0] += 1
        self.plane.in_flight += 1
        try:
            endpoint = self.plane.endpoints.find(name, version)
            yield endpoint, trace, watch
            trace.answered = self.clock()
            endpoint.recorder.request(trace.stages(self.clock()))
        except ConvoyError as error:
            code = error.grpc_code
            if endpoint is not None:
                self.plane.record_failure(endpoint, error)
            await abort(context, error)
        except asyncio.CancelledError:
            code = Cancelled.grpc_code
            watch.client_gone()
            if endpoint is not None:
                endpoint.recorder.cancelled()
            raise
        finally:
            self._in_flight[0] -= 1
            self.plane.in_flight -= 1
            if endpoint is not None:
                endpoint.recorder.code("grpc", code)

    def terms(self, context: Context, trace: Trace) -> Terms:
        remaining = context.time_remaining()
        return self.plane.terms(trace.started, remaining)


async def abort(context: Context, error: ConvoyError) -> None:
    await context.abort(grpc.StatusCode[error.grpc_code], str(error))


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Open Inference Protocol."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._plane = calls.plane

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        async with self._calls.call(request.model_name, request.model_version, context) as (endpoint, trace, watch):
            parsed = parse_message(request)
            trace.received = self._calls.clock()
            terms = self._calls.terms(context, trace)
            if parsed.parameters:
                terms = request_terms(self._plane, parsed, trace, terms)
            identifier = parsed.id or self._plane.new_id()
            caller = partial(grpc_caller, identifier, context, parsed.parameters)
            response = await infer(self._plane, endpoint, parsed, caller, terms, trace, watch)
            if trace.arm:
                context.set_trailing_metadata(tuple(arm_metadata(identifier, trace)))
            return render_message(response)
        raise AssertionError("unreachable: abort raises")

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=not self._plane.draining)

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(**describe.server())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        await self._find(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        document = describe.metadata(await self._find(request.name, request.version, context))
        tensor = pb.ModelMetadataResponse.TensorMetadata
        inputs, outputs = ([tensor(**one) for one in document[key]] for key in ("inputs", "outputs"))
        return pb.ModelMetadataResponse(**document | {"inputs": inputs, "outputs": outputs})

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:  # noqa: N802
        document = describe.config(await self._find(request.name, request.version, context))
        numbers = dict(describe.CONFIG_TYPES.values())
        inputs = [pb.ModelInput(**one | {"data_type": numbers[one["data_type"]]}) for one in document["input"]]
        outputs = [pb.ModelOutput(**one | {"data_type": numbers[one["data_type"]]}) for one in document["output"]]
        batching = pb.ModelDynamicBatching(**document["dynamic_batching"])
        rendered = document | {"input": inputs, "output": outputs, "dynamic_batching": batching}
        return pb.ModelConfigResponse(config=pb.ModelConfig(**rendered))

    async def _find(self, name: str, version: str, context: Context) -> Endpoint:
        try:
            return self._plane.endpoints.find(name, version)
        except ConvoyError as error:
            await abort(context, error)
            raise


class ClassifierServicer(classifier_pb2_grpc.ClassifierServicer):
    """convoy.v1.Classifier."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def Classify(self, request: classifier.ClassifyRequest, context: Context) -> classifier.ClassifyResponse:  # noqa: N802
        calls = self._calls
        async with calls.call(request.model, request.version, context) as (endpoint, trace, watch):
            trace.received = trace.started
            terms = calls.terms(context, trace)
            identifier = request.id or calls.plane.new_id()
            caller = partial(grpc_caller, identifier, context, {})
            work = partial(calls.plane.classify, list(request.images))
            answers = await calls.plane.answer(endpoint, caller, terms, trace, watch, work)
            if trace.arm:
                context.set_trailing_metadata(tuple(arm_metadata(identifier, trace)))
            labels = endpoint.manifest.labels
            rows = top_classes(answers, request.top_k or DEFAULT_TOP_K)
            predictions = [
                classifier.ClassifyResponse.Prediction(
                    classes=[
                        classifier.ClassifyResponse.Class(index=index, label=labels[index], probability=probability)
                        for index, probability in zip(classes, probabilities, strict=True)
                    ]
                )
                for classes, probabilities in rows
            ]
            return classifier.ClassifyResponse(
                id=identifier,
                model=endpoint.name,
                version=endpoint.version,
                predictions=predictions,
                timings_ms=classifier.ClassifyResponse.Timings(**timings(trace, calls.clock())),
                batch_size=trace.batch_size,
            )
        raise AssertionError("unreachable: abort raises")


class GrpcListener:
    """Serves a gateway's gRPC. Several gateways of a node share the port (SO_REUSEPORT)."""

    def __init__(
        self, plane: DataPlane, metrics: Metrics, settings: Settings, experiments: Experiments | None = None
    ) -> None:
        listen = settings.listen
        # A message holds a tensor's bytes and little else: the body's limit with room for the rest.
        size = settings.limits.body_bytes + 64 * 1024
        options = [
            ("grpc.max_receive_message_length", size),
            ("grpc.max_send_message_length", size),
            ("grpc.so_reuseport", 1),
        ]
        self._server = _make_server(listen.grpc_server, options)
        calls = Calls(plane, metrics)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceServicer(calls), self._server)  # type: ignore[no-untyped-call]
        classifier_pb2_grpc.add_ClassifierServicer_to_server(ClassifierServicer(calls), self._server)  # type: ignore[no-untyped-call]
        experiments_pb2_grpc.add_ExperimentsServicer_to_server(FeedbackServicer(experiments), self._server)  # type: ignore[no-untyped-call]
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        address = f"[{listen.host}]" if ":" in listen.host else listen.host
        try:
            self._server.add_insecure_port(f"{address}:{listen.grpc_port}")
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {address}:{listen.grpc_port}; stop what uses it or choose another port"
            ) from error

    async def start(self) -> None:
        await self._server.start()
        for service in ("", "inference.GRPCInferenceService", "convoy.v1.Classifier", "convoy.v1.Experiments"):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, seconds: float) -> None:
        """Tells clients to go elsewhere, finishes what is in flight, at most `seconds`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds)


def _make_server(kind: GrpcServer, options: list[tuple[str, int]]) -> grpc.aio.Server:
    if kind == "native":
        return pygrpc_native.aio.server(options=options)
    return grpc.aio.server(options=options)
