"""The OpenAPI document is true: schemathesis finds no answer that it does not describe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serve.config import parse_settings
from tests.serve.listeners import Serving, serving

# A schema cannot say which bytes are an image, so valid requests may be refused; every other check runs.
EXCLUDED = "positive_data_acceptance"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("openapi")
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    models = [{"name": "lenet5-mnist"}, {"name": "resnet20-cifar10"}]
    with serving(parse_settings({"listen": ports, "runtime_dir": str(folder), "models": models})) as one:
        yield one


def test_schemathesis_finds_nothing(gateway: Serving, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.http}/openapi.json"),
        *("--checks", "all", "--exclude-checks", EXCLUDED),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--seed", "1"),
        *("--no-color", "--suppress-health-check", "all"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_route_of_a_model_is_described(gateway: Serving) -> None:
    document = httpx.get(f"{gateway.http}/openapi.json").json()
    assert document["components"]["parameters"]["model"]["schema"]["enum"] == [
        "lenet5-mnist",
        "lenet5-mnist-tensor",
        "resnet20-cifar10",
        "resnet20-cifar10-tensor",
    ]
    described = set(document["paths"])
    for of_model in ("", "/ready", "/config", "/stats", "/infer"):
        assert f"/v2/models/{{model}}{of_model}" in described
