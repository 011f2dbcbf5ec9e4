"""Handover of the listening socket between the node agent and gateways, and the folder of its Unix sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from convoy.errors import ConfigError
from serve.node.socket_handover import KEEPER, Handover, bind, find_listener, prepare_folder, receive_listener


def answers(listener: socket.socket) -> bool:
    """Whether a connection to the port is accepted by this listener."""
    with socket.create_connection(listener.getsockname()):
        peer, _ = listener.accept()
        peer.close()
    return True


def test_a_received_listener_outlives_its_keeper(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as kept:
        handover = Handover(tmp_path / KEEPER, kept)
        received = receive_listener(tmp_path / KEEPER)
        assert received is not None
        handover.close()
    with received:
        assert answers(received)


def test_a_new_keeper_takes_the_socket_from_a_gateway(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as kept:
        gateway = Handover(tmp_path / "gateway-1.sock", kept)
        found = find_listener(tmp_path)
        assert found is not None
        with found:
            assert found.getsockname() == kept.getsockname()
        gateway.close()


def test_sockets_of_dead_gateways_are_removed(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "gateway-9.sock"))
    dead.close()
    assert find_listener(tmp_path) is None
    assert not list(tmp_path.glob("gateway-*"))


def test_a_second_keeper_replaces_the_first_without_a_gap(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as first_socket, bind("127.0.0.1", 0) as second_socket:
        first = Handover(tmp_path / KEEPER, first_socket)
        second = Handover(tmp_path / KEEPER, second_socket)
        first.close()
        received = receive_listener(tmp_path / KEEPER)
        assert received is not None
        with received:
            assert received.getsockname() == second_socket.getsockname()
        second.close()


def test_a_taken_port_is_a_clear_error() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="choose another port"):
        bind("127.0.0.1", taken.getsockname()[1])


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "node")
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o1777])
def test_a_folder_that_other_users_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """Another user could place a socket there, and gateways would connect to it."""
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match="other users may write"):
        prepare_folder(tmp_path)
