"""A gRPC server that cannot be opened leaves nothing behind: no socket, no folder."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.config.schema import Listen
from serve.grpc.server import open_native

OPTIONS = {"grpc.max_receive_message_length": 1000, "grpc.max_metadata_size": 1000}


@pytest.mark.parametrize("folder", ["l" * 100, "missing"])  # a Unix socket's path holds 107 bytes
def test_a_server_that_cannot_be_opened_leaves_nothing_open(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_ports: Callable[[int], list[int]]
) -> None:
    (port,) = free_ports(1)
    temporary = tmp_path / folder
    if folder != "missing":
        temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    async def scenario() -> None:
        with pytest.raises((OSError, RuntimeError)) as caught:  # its traceback keeps all that is not closed
            open_native(Listen(grpc_port=port), OPTIONS, {}, list[str]().append)
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
        assert caught.value is not None

    asyncio.run(scenario())
    assert [*tmp_path.rglob("convoy-grpc-*")] == []
