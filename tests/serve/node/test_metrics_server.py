"""The metrics endpoint: keys, TLS, and clients that keep connections open."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from convoy.credentials import digest, new_key
from serve.config.schema import ApiKey, Listen, Tls
from serve.deployments.node_agent import serve_metrics
from serve.node.metrics_server import CONNECTIONS
from tests.certificates import Authority
from tests.waiting import until

Ports = Callable[[int], list[int]]


@contextmanager
def listening(ports: Ports, folder: Path, *keys: ApiKey, tls: Tls | None = None) -> Iterator[str]:
    listen = Listen(metrics_port=ports(1)[0], tls=tls)
    server = serve_metrics(listen, folder, keys=keys)
    try:
        yield f"{listen.http_scheme}://127.0.0.1:{listen.metrics_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_metrics_key_metrics_are_open(free_ports: Ports, tmp_path: Path) -> None:
    with listening(free_ports, tmp_path) as url:
        assert "process_resident_memory_bytes" in httpx.get(url).text


def test_metrics_require_the_key_when_one_is_configured(free_ports: Ports, tmp_path: Path) -> None:
    key = new_key()
    reader = ApiKey(name="prometheus", sha256=digest(key).hex(), models=(), metrics=True)
    with listening(free_ports, tmp_path, reader) as url:
        for headers in ({}, {"authorization": f"Bearer {new_key()}"}, {"x-api-key": "é".encode("latin-1")}):
            answer = httpx.get(url, headers=headers)  # type: ignore[arg-type]
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "process_" not in answer.text
        assert httpx.get(url, headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_metrics_over_tls(free_ports: Ports, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "root")
    pair = authority.sign("server")
    client = authority.sign("client")
    tls = Tls(certificate=str(pair.certificate), key=str(pair.key), client_ca=str(authority.root))
    context = ssl.create_default_context(cafile=authority.root)
    with listening(free_ports, tmp_path, tls=tls) as url:
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=context)
        context.load_cert_chain(client.certificate, client.key)
        assert httpx.get(url, verify=context).status_code == 200


@pytest.mark.parametrize("secure", [False, True])
def test_a_request_head_sent_byte_by_byte_is_cut_off(
    free_ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    monkeypatch.setattr("serve.node.metrics_server.MAX_SECONDS", 0.5)
    authority = Authority(tmp_path, "root")
    pair = authority.sign("server")
    tls = Tls(certificate=str(pair.certificate), key=str(pair.key)) if secure else None
    context = ssl.create_default_context(cafile=authority.root)
    with listening(free_ports, tmp_path, tls=tls) as url:
        plain = socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") if secure else plain as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nx: ")

            def ended() -> bool:
                try:
                    connection.sendall(b"a")
                except OSError:
                    return True
                return False

            until(ended)


def test_silent_connections_are_limited(free_ports: Ports, tmp_path: Path) -> None:
    with listening(free_ports, tmp_path) as url:
        address = ("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        silent = [socket.create_connection(address) for _ in range(CONNECTIONS)]
        with socket.create_connection(address, timeout=30) as refused:
            assert refused.recv(1) == b""  # closed at once
        for connection in silent:
            connection.close()
        with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as client:

            def scraped() -> bool:
                try:
                    return client.get(url).status_code == 200
                except httpx.TransportError:
                    return False

            until(scraped)
