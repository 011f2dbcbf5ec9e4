"""One real server on Ray for all end-to-end tests: the bundled models, a slow one and a faulty one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments import local
from tests.artifacts import write_artifact
from tests.serve.listeners import admin_headers

SLOW_LOOPS = 25_000  # about 40 ms a run at any batch size


def _arms(first: str, first_model: str, second: str, second_model: str) -> list[dict[str, str]]:
    return [{"name": first, "model": first_model}, {"name": second, "model": second_model}]


EXPERIMENTS = [
    {"name": "digits", "arms": _arms("now", "lenet5-mnist", "shifted", "digits-shifted"), "sticky": "header:x-user"},
    {"name": "split", "arms": _arms("one", "quadrants-a", "two", "quadrants-b"), "sticky": "header:x-user"},
    {"name": "by-field", "arms": _arms("one", "quadrants-a", "two", "quadrants-b"), "sticky": "field:user"},
    {"name": "paired", "mode": "paired", "arms": _arms("control", "quadrants-a", "other", "quadrants-b")},
    {"name": "shadow", "mode": "shadow", "percent": 100, "arms": _arms("good", "quadrants-a", "bad", "faulty")},
    {"name": "guarded", "arms": _arms("good", "quadrants-a", "bad", "faulty"), "guardrails": {"error_rate": 0.1}},
    {
        "name": "canary",
        "mode": "canary",
        "ramp": [5, 50, 100],
        "arms": _arms("old", "quadrants-a", "new", "quadrants-b"),
    },
]


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Settings:
    folder = tmp_path_factory.mktemp("server")
    slow = write_artifact(folder / "slow", "slow", loops=SLOW_LOOPS)
    faulty = write_artifact(folder / "faulty", "faulty", faulty=True)
    quadrants = write_artifact(folder / "quadrants", "quadrants")
    http_port, grpc_port, metrics_port = free_ports(3)
    return parse_settings(
        {
            "listen": {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port},
            "limits": {"body_bytes": 12 * 2**20, "pixels": 4_000_000, "queue_rows": 64},
            "runtime_dir": str(folder / "node"),
            "atlas": str(folder / "atlas.json"),
            "power": {"idle_watts": 40, "busy_watts": 95},
            "models": [
                {"name": "lenet5-mnist"},
                {"name": "resnet20-cifar10"},
                {"name": "squeezenet1_1-imagenet", "placement": "dedicated"},
                {"name": "slow", "artifact": str(slow), "max_batch": 2},
                {"name": "faulty", "artifact": str(faulty)},
                {
                    "name": "hosted",
                    "artifact": str(slow),
                    "max_batch": 4,
                    "target_ms": 10_000,
                    "placement": "dedicated",
                    "replicas": 2,
                },
                {"name": "quadrants-a", "artifact": str(quadrants)},
                {"name": "quadrants-b", "artifact": str(quadrants)},
            ],
            "ensembles": [
                {"name": "digits-shifted", "members": [{"model": "lenet5-mnist", "views": ["shift"], "weight": 2}]},
                {"name": "cifar10-alone", "members": [{"model": "resnet20-cifar10"}]},
                {
                    "name": "cifar10-looks",
                    "combine": "geometric_mean",
                    "members": [
                        {"model": "resnet20-cifar10", "views": ["flip"]},
                        {"model": "resnet20-cifar10", "views": ["five_crops"], "weight": 0.5},
                    ],
                },
                {
                    "name": "photo-crops",
                    "members": [{"model": "squeezenet1_1-imagenet", "views": ["ten_crops"]}],
                },
                {
                    "name": "quadrants-any",
                    "deadline_ms": 10_000,
                    "members": [{"model": "faulty"}, {"model": "slow"}],
                },
                {
                    "name": "quadrants-both",
                    "min_members": 2,
                    "members": [{"model": "faulty"}, {"model": "slow"}],
                },
                {"name": "quadrants-soon", "deadline_ms": 500, "members": [{"model": "faulty"}, {"model": "slow"}]},
            ],
            "cascades": [
                {
                    "name": "cifar10-cascade",
                    "stages": [{"model": "resnet20-cifar10", "margin": 0.9}, {"model": "cifar10-looks"}],
                },
            ],
            "experiments": EXPERIMENTS,
            "ledger": {"flush_seconds": 0.1},
        }
    )


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Settings]:
    local.start(settings)
    yield settings
    local.stop()


@pytest.fixture(scope="session")
def http(server: Settings) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    url, admin = f"http://127.0.0.1:{server.listen.http_port}", admin_headers(server)
    with httpx.Client(base_url=url, timeout=60, limits=limits, headers=admin) as client:
        yield client


@pytest.fixture(scope="session")
def channel(server: Settings) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.listen.grpc_port}", options) as channel:
        yield channel


class Admin(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """Adds the admin's key to every unary call."""

    def __init__(self, server: Settings) -> None:
        self._metadata = tuple(admin_headers(server).items())

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        sent = (*(details.metadata or ()), *self._metadata)
        return continuation(details._replace(metadata=sent), request)


@pytest.fixture(scope="session")
def inference(server: Settings, channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(grpc.intercept_channel(channel, Admin(server)))  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def classifier(channel: grpc.Channel) -> ClassifierStub:
    return ClassifierStub(channel)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def samples() -> Path:
    from models.artifact import BUNDLED

    return BUNDLED / "samples"
