"""The gRPC listener: all services on one port, served by pygrpc-native or by grpcio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pygrpc_native.aio
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
        options = [
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),  # the server could only fail to send what it has counted as answered
            ("grpc.max_metadata_size", settings.limits.header_bytes),
            ("grpc.absolute_max_metadata_size", settings.limits.header_bytes),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        self._front: GrpcFront | None = None
        try:
            self._server = self._open(listen, options, max_bytes)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"cannot listen on {listen.host}:{listen.grpc_port}; stop what uses it or choose another port"
            ) from error
        calls = Calls(plane, metrics)
        services = BoundedServices(self._server, settings.limits.images_per_request + ENVELOPE_FIELDS)
        inference, classifier = InferenceServicer(calls, repository, settings), ClassifierServicer(calls)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, services)  # type: ignore[no-untyped-call]
        classifier_pb2_grpc.add_ClassifierServicer_to_server(classifier, services)  # type: ignore[no-untyped-call]
        experiments_pb2_grpc.add_ExperimentsServicer_to_server(
            FeedbackServicer(calls, experiments), BoundedServices(self._server, MOST_FIELDS)
        )  # type: ignore[no-untyped-call]
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (INFERENCE, CLASSIFIER, EXPERIMENTS, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def _open(self, listen: Listen, options: list[tuple[str, int]], max_bytes: int) -> grpc.aio.Server:
        """Creates the server on its port. Raises OSError or RuntimeError if the port is taken."""
        if listen.grpc_server == "native" and listen.tls is None:  # the native server has no TLS
            self._front = GrpcFront(listen.host, listen.grpc_port, max_bytes)
            native: grpc.aio.Server = pygrpc_native.aio.server(options=options)
            native.add_insecure_port(f"unix:{self._front.path}")
            return native
        # No compression: a compressed message of a thousandth of the limit could expand to the limit.
        server = grpc.aio.server(options=[*options, ("grpc.so_reuseport", 1), (COMPRESSION_OPTION, IDENTITY_ONLY)])
        address = f"[{listen.host}]:{listen.grpc_port}" if ":" in listen.host else f"{listen.host}:{listen.grpc_port}"
        if listen.tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, grpc_credentials(listen.tls))
        return server

    async def start(self) -> None:
        """Returns once the server accepts calls and its health service reports SERVING."""
        await self._server.start()
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
        await self._server.stop(seconds)
        if self._front is not None:
            self._front.close()
