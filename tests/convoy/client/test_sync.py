"""The synchronous client: errors by status, addresses, and absent servers."""

from __future__ import annotations

import pytest

from convoy.client import Client
from convoy.errors import ConvoyError, InvalidInput, NotFound, NotReady, Overloaded, error_of


def test_statuses_map_to_error_classes() -> None:
    assert isinstance(error_of("http_status", 404, "x"), NotFound)
    assert isinstance(error_of("grpc_code", "NOT_FOUND", "x"), NotFound)
    assert isinstance(error_of("grpc_code", "INVALID_ARGUMENT", "x"), InvalidInput)
    assert isinstance(error_of("http_status", 503, "x"), (NotReady, Overloaded))
    assert type(error_of("http_status", 500, "x")) is ConvoyError
    assert type(error_of("http_status", 418, "x")) is ConvoyError


def test_an_address_without_scheme_is_refused() -> None:
    with pytest.raises(InvalidInput, match="grpc://"):
        Client("localhost:8000")


def test_an_absent_server_is_not_ready(free_ports: object) -> None:
    assert callable(free_ports)
    port = free_ports(1)[0]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(NotReady, match="convoy up"):
        client.models()
    with Client(f"grpc://127.0.0.1:{port}") as client, pytest.raises(NotReady):
        client.classify("m", b"", timeout=2)
