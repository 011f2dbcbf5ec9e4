"""The gRPC listener: all services on one port, served by grpcio alone or behind the native server of the hot calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from convoy.errors import ConfigError
from convoy.protos import (
    classifier_pb2,
    classifier_pb2_grpc,
    experiments_pb2,
    experiments_pb2_grpc,
    open_inference_pb2,
    open_inference_pb2_grpc,
)
from serve.config.schema import Listen, Settings
from serve.experiments.feedback import MOST_FIELDS
from serve.gateway.dataplane import DataPlane
from serve.gateway.repository import Repository
from serve.grpc.calls import Calls
from serve.grpc.classifier import ClassifierServicer
from serve.grpc.feedback import FeedbackServicer
from serve.grpc.front import GrpcFront
from serve.grpc.hot_calls import HotCalls, HotMethod
from serve.grpc.inference import InferenceServicer
from serve.grpc.message_fields import ENVELOPE_FIELDS, BoundedServices
from serve.telemetry.recorder import Metrics
from serve.tls import grpc_credentials

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

# Milliseconds between keepalive pings; a client that does not acknowledge one within the timeout is disconnected.
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
COMPRESSION_OPTION, IDENTITY_ONLY = "grpc.compression_enabled_algorithms_bitset", 1
INFERENCE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
CLASSIFIER = classifier_pb2.DESCRIPTOR.services_by_name["Classifier"].full_name
EXPERIMENTS = experiments_pb2.DESCRIPTOR.services_by_name["Experiments"].full_name


class GrpcServer:
    """The gRPC server of a gateway. The gateways of a node share the port (SO_REUSEPORT)."""

    def __init__(
        self,
        plane: DataPlane,
        repository: Repository,
        metrics: Metrics,
        settings: Settings,
        experiments: Experiments | None = None,
    ) -> None:
        """Raises ConfigError if the port is taken."""
        listen = settings.listen
        # A message is mostly a tensor's bytes, so its limit is that of an HTTP body plus 64 KiB for the other fields.
        max_bytes = settings.limits.body_bytes + 64 * 1024
        options = {
            "grpc.max_receive_message_length": max_bytes,
            "grpc.max_send_message_length": -1,  # the server could only fail to send what it has counted as answered
            "grpc.max_metadata_size": settings.limits.header_bytes,
            "grpc.absolute_max_metadata_size": settings.limits.header_bytes,
            "grpc.keepalive_time_ms": KEEPALIVE_MS,
            "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
            "grpc.keepalive_permit_without_calls": 1,
        }
        calls = Calls(plane, metrics)
        most_fields = settings.limits.images_per_request + ENVELOPE_FIELDS
        inference = InferenceServicer(calls, repository, settings, most_fields)
        classifier = ClassifierServicer(calls, most_fields)
        self._front: GrpcFront | None = None
        self._hot: HotCalls | None = None
        try:
            if listen.grpc_server == "native" and listen.tls is None:  # the native server has no TLS
                hot = {
                    f"/{INFERENCE}/ModelInfer": HotMethod(inference.infer_bytes, inference.direct),
                    f"/{CLASSIFIER}/Classify": HotMethod(classifier.classify_bytes),
                }
                self._front, self._hot, self._server = open_native(listen, options, hot, calls.count_refusal)
            else:
                self._server = _open_grpcio(listen, options)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"cannot listen on {listen.host}:{listen.grpc_port}; stop what uses it or choose another port"
            ) from error
        services = BoundedServices(self._server, most_fields)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, services)  # type: ignore[no-untyped-call]
        classifier_pb2_grpc.add_ClassifierServicer_to_server(classifier, services)  # type: ignore[no-untyped-call]
        experiments_pb2_grpc.add_ExperimentsServicer_to_server(
            FeedbackServicer(calls, experiments), BoundedServices(self._server, MOST_FIELDS)
        )  # type: ignore[no-untyped-call]
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (INFERENCE, CLASSIFIER, EXPERIMENTS, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> None:
        """Returns once the server accepts calls and its health service reports SERVING."""
        await self._server.start()
        if self._hot is not None:
            self._hot.start()
        if self._front is not None:
            await self._front.start()
        for service in ("", INFERENCE, CLASSIFIER, EXPERIMENTS):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def say_unready(self) -> None:
        """Reports NOT_SERVING, so that clients switch to another server. New calls are still accepted."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, seconds: float) -> None:
        """Reports NOT_SERVING, completes the calls in flight within `seconds`, then closes all connections."""
        await self._health.enter_graceful_shutdown()
        if self._hot is None:
            await self._server.stop(seconds)
        else:
            await asyncio.gather(self._server.stop(seconds), self._hot.drain(seconds))
            if self._front is not None:  # or clients that lose their connection would come back at once
                self._front.stop_accepting()
            await self._hot.close()
        if self._front is not None:
            await self._front.stop()


def open_native(
    listen: Listen, options: Mapping[str, int], hot: Mapping[str, HotMethod], count_refusal: Callable[[str], None]
) -> tuple[GrpcFront, HotCalls, grpc.aio.Server]:
    """Opens the port, the native server behind it, and the grpcio server behind that.

    Raises OSError or RuntimeError, and then leaves nothing open.
    """
    max_bytes = options["grpc.max_receive_message_length"]
    front = GrpcFront(listen.host, listen.grpc_port, max_bytes, count_refusal)
    try:
        calls = HotCalls(
            str(front.path),
            str(front.fallback),
            hot,
            max_metadata_size=options["grpc.max_metadata_size"],
            keepalive_time_ms=KEEPALIVE_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
        )
        behind = grpc.aio.server(options=tuple(options.items()))
        behind.add_insecure_port(f"unix:{front.fallback}")
    except BaseException:
        front.close()
        raise
    return front, calls, behind


def _open_grpcio(listen: Listen, options: Mapping[str, int]) -> grpc.aio.Server:
    """grpcio's server on the port. Raises RuntimeError if the port is taken."""
    # No compression: a compressed message of a thousandth of the limit could expand to the limit.
    own = {"grpc.so_reuseport": 1, COMPRESSION_OPTION: IDENTITY_ONLY}
    server = grpc.aio.server(options=tuple({**options, **own}.items()))
    address = f"[{listen.host}]:{listen.grpc_port}" if ":" in listen.host else f"{listen.host}:{listen.grpc_port}"
    if listen.tls is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, grpc_credentials(listen.tls))
    return server
