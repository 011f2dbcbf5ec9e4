"""TLS and mTLS on the HTTP and gRPC listeners: clients without the right certificates get no response."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from convoy.client import Client, Credentials
from convoy.client.aio import AsyncClient
from convoy.client.retries import Retries
from convoy.errors import ConfigError, ConvoyError
from models.artifact import BUNDLED
from serve.config.schema import Tls
from serve.tls import server_context
from tests.certificates import Authority, Pair
from tests.serve.listeners import Serving, StartGateway

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


@pytest.fixture(scope="module")
def tls(server_pair: Pair, start_gateway: StartGateway) -> Iterator[Serving]:
    pair = {"certificate": str(server_pair.certificate), "key": str(server_pair.key)}
    with start_gateway(listen={"tls": pair}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def mutual(server_pair: Pair, authority: Authority, start_gateway: StartGateway) -> Iterator[Serving]:
    pair = {"certificate": str(server_pair.certificate), "key": str(server_pair.key)}
    with start_gateway(listen={"tls": pair | {"client_ca": str(authority.root)}}) as gateway:
        yield gateway


def label(url: str, credentials: Credentials) -> str:
    with Client(url, ONE_TRY, credentials) as client:
        return client.classify("lenet5-mnist", DIGIT, top_k=1, timeout=10).predictions[0].classes[0].label


@BOTH
def test_a_client_that_trusts_the_root_gets_an_answer(tls: Serving, authority: Authority, protocol: str) -> None:
    assert getattr(tls, protocol).partition("://")[0] in ("https", "grpcs")
    assert label(getattr(tls, protocol), Credentials(ca=authority.root)) == "7"


@BOTH
def test_the_async_client_gets_an_answer_too(tls: Serving, authority: Authority, protocol: str) -> None:
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
def test_an_unencrypted_client_gets_no_answer(tls: Serving, protocol: str) -> None:
    with pytest.raises(ConvoyError):
        label(getattr(tls, protocol).replace("s://", "://"), Credentials())


def test_tls_versions_before_1_2_are_refused(tls: Serving, authority: Authority) -> None:
    host = tls.http.removeprefix("https://").split(":")[0]
    context = ssl.create_default_context(cafile=authority.root)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # the client must not be the one that refuses
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with tls.connect() as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=host)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls.connect() as plain, context.wrap_socket(plain, server_hostname=host) as encrypted:
        assert encrypted.version() == "TLSv1.2"


@BOTH
def test_a_client_with_a_certificate_is_accepted(mutual: Serving, authority: Authority, protocol: str) -> None:
    pair = authority.sign("client")
    credentials = Credentials(ca=authority.root, certificate=pair.certificate, certificate_key=pair.key)
    assert label(getattr(mutual, protocol), credentials) == "7"


@BOTH
def test_a_client_without_the_right_certificate_is_refused(
    mutual: Serving, authority: Authority, folder: Path, protocol: str
) -> None:
    pair = Authority(folder, "other").sign("intruder")
    for credentials in (
        Credentials(ca=authority.root),
        Credentials(ca=authority.root, certificate=pair.certificate, certificate_key=pair.key),
    ):
        with pytest.raises(ConvoyError):
            label(getattr(mutual, protocol), credentials)


def test_missing_and_invalid_files_are_refused(server_pair: Pair, tmp_path: Path) -> None:
    absent, invalid = tmp_path / "absent.pem", tmp_path / "invalid.pem"
    invalid.write_text("not a certificate")
    valid = (str(server_pair.certificate), str(server_pair.key))
    for certificate, key, client_ca in (
        (str(absent), valid[1], ""),
        (valid[0], str(invalid), ""),
        (str(invalid), valid[1], ""),
        (*valid, str(absent)),
        (*valid, str(invalid)),
    ):
        with pytest.raises(ConfigError, match=r"listen\.tls"):
            server_context(Tls(certificate=certificate, key=key, client_ca=client_ca))
    with pytest.raises(ConfigError, match="credentials"):
        Credentials(ca=absent).tls()
    with pytest.raises(ConfigError, match="credentials"):
        Credentials(ca=absent).channel()
