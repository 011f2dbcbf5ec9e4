"""Fixtures of the tests of a gateway."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from serve.config.loading import parse_settings
from tests.serve.listeners import Serving, StartGateway, serving


@pytest.fixture(scope="session")
def start_gateway(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> StartGateway:
    """Starts a gateway in this process with the given configuration; ports, folder and LeNet-5 are defaults."""

    def start(**configuration: Any) -> AbstractContextManager[Serving]:
        ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
        defaults = {"runtime_dir": str(tmp_path_factory.mktemp("gateway")), "models": [{"name": "lenet5-mnist"}]}
        listen = {"listen": ports | configuration.pop("listen", {})}
        return serving(parse_settings(defaults | configuration | listen))

    return start
