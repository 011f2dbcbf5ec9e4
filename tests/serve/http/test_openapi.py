"""The OpenAPI document describes the models and every route."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from serve.http.experiment_routes import experiment_routes
from tests.serve.listeners import Serving, StartGateway


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(models=[{"name": "lenet5-mnist"}, {"name": "resnet20-cifar10"}]) as gateway:
        yield gateway


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
