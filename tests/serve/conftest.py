"""Fixtures that start a gateway in the test process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from serve.config.loading import parse_settings
from serve.config.schema import Settings
from tests.serve.listeners import GatewaySettings, Serving, StartGateway, serving


@pytest.fixture(scope="session")
def gateway_settings(
    tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]
) -> GatewaySettings:
    """Parses a configuration. Defaults: free ports, a new runtime folder and LeNet-5."""

    def parse(**configuration: Any) -> Settings:
        ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
        defaults = {"runtime_dir": str(tmp_path_factory.mktemp("gateway")), "models": [{"name": "lenet5-mnist"}]}
        listen = {"listen": ports | configuration.pop("listen", {})}
        return parse_settings(defaults | configuration | listen)

    return parse


@pytest.fixture(scope="session")
def start_gateway(gateway_settings: GatewaySettings) -> StartGateway:
    """Starts a gateway. Takes a configuration, with the defaults of `gateway_settings`."""

    def start(**configuration: Any) -> AbstractContextManager[Serving]:
        return serving(gateway_settings(**configuration))

    return start
