"""TLS and mTLS on the HTTP and gRPC listeners: clients without the right certificates get no response."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from convoy.client import Client, Credentials
from convoy.client.aio import AsyncClient
from convoy.client.retries import Retries
from convoy.errors import ConfigError, ConvoyError
from models.artifact import BUNDLED
from serve.config.loading import parse_settings
from serve.config.schema import Tls
from serve.tls import server_context
from tests.certificates import Authority, Pair
from tests.serve.listeners import Serving, serving

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
ONE_TRY = Retries(tries=1)
BOTH = pytest.mark.parametrize("protocol", ["http", "grpc"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "root")


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.sign("server")


Open = Callable[[str], AbstractContextManager[Serving]]


@pytest.fixture(scope="module")
def opened(folder: Path, server_pair: Pair, free_ports: Callable[[int], list[int]]) -> Open:
    def open_one(client_ca: str) -> AbstractContextManager[Serving]:
        tls = {"certificate": str(server_pair.certificate), "key": str(server_pair.key), "client_ca": client_ca}
        ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
        runtime = str(folder / f"node-{bool(client_ca)}")
        models = [{"name": "lenet5-mnist"}]
        return serving(parse_settings({"listen": {**ports, "tls": tls}, "runtime_dir": runtime, "models": models}))

    return open_one


@pytest.fixture(scope="module")
def tls(opened: Open) -> Iterator[Serving]:
    with opened("") as one:
        yield one


@pytest.fixture(scope="module")
def mutual(opened: Open, authority: Authority) -> Iterator[Serving]:
    with opened(str(authority.root)) as one:
        yield one


def label(url: str, credentials: Credentials) -> str:
    with Client(url, ONE_TRY, credentials) as client:
        return client.classify("lenet5-mnist", DIGIT, top_k=1, timeout=10).predictions[0].classes[0].label


@BOTH
def test_encrypted(tls: Serving, authority: Authority, protocol: str) -> None:
    assert getattr(tls, protocol).partition("://")[0] in ("https", "grpcs")
    assert label(getattr(tls, protocol), Credentials(ca=authority.root)) == "7"


@BOTH
def test_encrypted_with_the_async_client(tls: Serving, authority: Authority, protocol: str) -> None:

    async def ask() -> str:
        async with AsyncClient(getattr(tls, protocol), ONE_TRY, Credentials(ca=authority.root)) as client:
            return (await client.classify("lenet5-mnist", DIGIT, top_k=1)).predictions[0].classes[0].label

    assert asyncio.run(ask()) == "7"


@BOTH
def test_a_client_without_the_root_certificate_refuses_the_server(tls: Serving, folder: Path, protocol: str) -> None:
    unknown = Authority(folder, "unknown")
    with pytest.raises(ConvoyError):
        label(getattr(tls, protocol), Credentials(ca=unknown.root))


@BOTH
def test_plain_text_is_not_answered(tls: Serving, protocol: str) -> None:
    with pytest.raises(ConvoyError):
        label(getattr(tls, protocol).replace("s://", "://"), Credentials())


def test_old_versions_are_refused(tls: Serving, authority: Authority) -> None:
    host, port = tls.http.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=authority.root)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that the server refuses, not the client
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((host, int(port))) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=host)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as one:
        assert one.version() == "TLSv1.2"


@BOTH
def test_a_client_with_a_certificate_is_accepted(mutual: Serving, authority: Authority, protocol: str) -> None:
    pair = authority.sign("client")
    shown = Credentials(ca=authority.root, certificate=pair.certificate, certificate_key=pair.key)
    assert label(getattr(mutual, protocol), shown) == "7"


@BOTH
def test_a_client_without_the_right_certificate_is_refused(
    mutual: Serving, authority: Authority, folder: Path, protocol: str
) -> None:
    pair = Authority(folder, "other").sign("intruder")
    for shown in (
        Credentials(ca=authority.root),
        Credentials(ca=authority.root, certificate=pair.certificate, certificate_key=pair.key),
    ):
        with pytest.raises(ConvoyError):
            label(getattr(mutual, protocol), shown)


def test_missing_and_invalid_files_are_refused(server_pair: Pair, tmp_path: Path) -> None:
    absent, wrong = tmp_path / "absent.pem", tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    good = (str(server_pair.certificate), str(server_pair.key))
    for certificate, key, client_ca in (
        (str(absent), good[1], ""),
        (good[0], str(wrong), ""),
        (str(wrong), good[1], ""),
        (*good, str(absent)),
        (*good, str(wrong)),
    ):
        with pytest.raises(ConfigError, match=r"listen\.tls"):
            server_context(Tls(certificate=certificate, key=key, client_ca=client_ca))
    with pytest.raises(ConfigError, match="credentials"):
        Credentials(ca=absent).tls()
    with pytest.raises(ConfigError, match="credentials"):
        Credentials(ca=absent).channel()
