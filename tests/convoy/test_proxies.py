"""Proxies of the environment: clients bypass them for servers on this machine and use them for all others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from convoy import AsyncClient
from convoy.cli import main
from convoy.client import Client, Retries
from convoy.errors import ConfigError, NotReady
from convoy.proxies import bypass, is_local
from tests.convoy.identity_server import Server, running
from tests.proxies import SPELLINGS, CountingProxy, counting_proxy, forget_proxies

ONE_TRY = Retries(tries=1)
USERS_OWN = (None, "no_proxy", "NO_PROXY")  # the variable that the user has set for another host


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    forget_proxies(monkeypatch)
    with counting_proxy() as proxy:
        yield proxy


@pytest.fixture(params=["http", "grpc"])
def url(server: Server, request: pytest.FixtureRequest) -> str:
    return str(getattr(server, request.param))


async def ask(url: str) -> None:
    async with AsyncClient(url, ONE_TRY) as client:
        await client.classify("m", b"image")


@pytest.mark.parametrize("own", USERS_OWN)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_clients_reach_a_server_on_this_machine(
    url: str, spelling: str, own: str | None, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(spelling, proxy.url)
    if own:
        monkeypatch.setenv(own, "intranet.example")
    with Client(url, ONE_TRY) as client:
        assert client.classify("m", b"image").model == "m"
    asyncio.run(ask(url))
    assert proxy.asked == []


def test_commands_reach_a_server_on_this_machine(
    server: Server, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in proxy.everywhere.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(main, ["models", "--json", "--url", server.http])
    assert done.exit_code == 0, done.output
    assert proxy.asked == []


def test_an_unusable_proxy_does_not_affect_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)
    monkeypatch.setenv("all_proxy", "gopher://127.0.0.1:1")
    with Client(server.http, ONE_TRY) as client:
        assert client.ready()
    asyncio.run(ask(server.http))


@pytest.mark.parametrize(
    ("spelling", "url", "line"),
    [
        ("http_proxy", "http://server.invalid:8000", "POST http://server.invalid:8000/v1/models/m/classify"),
        ("ALL_PROXY", "http://server.invalid:8000", "POST http://server.invalid:8000/v1/models/m/classify"),
        ("https_proxy", "https://server.invalid", "CONNECT server.invalid:443"),
        ("http_proxy", "grpc://server.invalid:8001", "CONNECT server.invalid:8001"),
        ("grpc_proxy", "grpc://server.invalid:8001", "CONNECT server.invalid:8001"),
    ],
)
def test_clients_reach_other_servers_through_the_users_proxy(
    spelling: str, url: str, line: str, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(spelling, proxy.url)
    with Client(url, ONE_TRY) as client, pytest.raises(NotReady):
        client.classify("m", b"image")
    with pytest.raises(NotReady):
        asyncio.run(ask(url))
    assert len(proxy.asked) >= 2
    assert all(asked.startswith(line) for asked in proxy.asked)


@pytest.mark.parametrize("proxy_url", ["gopher://proxy.example:1", "socks5://proxy.example:1080"])
def test_a_proxy_that_cannot_be_used_is_named(proxy_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)
    monkeypatch.setenv("all_proxy", proxy_url)
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match=r"cannot be used .*; correct http_proxy, https_proxy or all_proxy, or"):
            kind("http://server.example:8000")


HERE = """
http://127.0.0.1:8000 http://127.9.8.7 grpc://localhost:8001 https://LOCALHOST./ grpcs://[::1]:8001 http://0.0.0.0:8000 http://[::]:8000
"""
ELSEWHERE = """
http://128.0.0.1 http://server.example http://localhost.example http://127.0.0.1.example:80 http://127.0.0.1@server.example
grpc://[2001:db8::1]:8001 grpc://unix:/run/convoy.sock http:// http://[::1
"""


@pytest.mark.parametrize("url", HERE.split())
def test_addresses_of_this_machine_are_local(url: str) -> None:
    assert is_local(url)


@pytest.mark.parametrize("url", ELSEWHERE.split())
def test_other_addresses_are_not_local(url: str) -> None:
    assert not is_local(url)


@pytest.mark.parametrize(
    ("environment", "value"),
    [
        ({}, "localhost,127.0.0.1,::1,db"),
        ({"no_proxy": "a.example, 10.0.0.0/8"}, "a.example,10.0.0.0/8,localhost,127.0.0.1,::1,db"),
        ({"NO_PROXY": "a.example"}, "a.example,localhost,127.0.0.1,::1,db"),
        ({"no_proxy": "a.example", "NO_PROXY": "b.example"}, "a.example,localhost,127.0.0.1,::1,db"),
        ({"no_proxy": "127.0.0.1,db"}, "127.0.0.1,db,localhost,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_hosts_that_the_user_excludes_from_the_proxy_stay_excluded(environment: dict[str, str], value: str) -> None:
    assert bypass(environment, "db") == {"no_proxy": value, "NO_PROXY": value}
