"""CORS: pages of other origins may not read responses, unless the configuration allows their origin."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from convoy.errors import ConfigError
from serve.config.loading import parse_settings
from tests.serve.listeners import StartGateway

SITE = "https://shop.example"
CLASSIFY = "/v1/models/lenet5-mnist/classify"


@pytest.fixture(scope="module", params=[[], [SITE]], ids=["closed", "one site"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[tuple[httpx.Client, list[str]]]:
    with (
        start_gateway(listen={"cors_origins": request.param}) as running,
        httpx.Client(base_url=running.http) as client,
    ):
        yield client, request.param


def preflight(client: httpx.Client, origin: str, method: str = "POST", header: str = "authorization") -> httpx.Response:
    headers = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": header}
    return client.options(CLASSIFY, headers=headers)


def test_only_declared_origins_may_read(gateway: tuple[httpx.Client, list[str]]) -> None:
    client, sites = gateway
    for origin in (SITE, "https://evil.example", "null", f"{SITE}.evil.example", "http://shop.example"):
        answer = client.get("/v1/models", headers={"origin": origin})
        assert answer.headers.get("access-control-allow-origin") == (origin if origin in sites else None)
        assert "access-control-allow-credentials" not in answer.headers
        assert preflight(client, origin).is_success == (origin in sites)


def test_only_needed_methods_and_headers_are_allowed(gateway: tuple[httpx.Client, list[str]]) -> None:
    client, _ = gateway
    assert not preflight(client, SITE, "DELETE").is_success
    assert not preflight(client, SITE, header="x-anything").is_success


@pytest.mark.parametrize(
    "origin", ["*", "null", "shop.example", "https://shop.example/", "https://*.example", "ftp://a"]
)
def test_an_origin_needs_scheme_and_host(origin: str) -> None:
    with pytest.raises(ConfigError, match="cors_origins"):
        parse_settings({"listen": {"cors_origins": [origin]}})
