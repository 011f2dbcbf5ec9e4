"""The OpenAPI document describes the models and every route."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from serve.config.loading import parse_settings
from serve.http.experiment_routes import experiment_routes
from tests.serve.listeners import Serving, serving


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("openapi")
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    models = [{"name": "lenet5-mnist"}, {"name": "resnet20-cifar10"}]
    with serving(parse_settings({"listen": ports, "runtime_dir": str(folder), "models": models})) as one:
        yield one


def test_every_route_of_a_model_is_described(gateway: Serving) -> None:
    document = httpx.get(f"{gateway.http}/openapi.json").json()
    assert document["components"]["parameters"]["model"]["schema"]["enum"] == [
        "lenet5-mnist",
        "lenet5-mnist-tensor",
        "resnet20-cifar10",
        "resnet20-cifar10-tensor",
    ]
    described = set(document["paths"])
    for suffix in ("", "/ready", "/config", "/stats", "/infer"):
        assert f"/v2/models/{{model}}{suffix}" in described


def test_every_route_of_experiments_is_described(gateway: Serving) -> None:
    described = httpx.get(f"{gateway.http}/openapi.json").json()["paths"]
    for route in experiment_routes(gateway.plane, None):
        operations = described[route.path.replace("{name}", "{experiment}")]
        assert {method.lower() for method in route.methods or ()} - {"head"} <= set(operations)
