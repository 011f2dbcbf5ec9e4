"""Passes the node's listening HTTP socket between processes over a Unix socket (SCM_RIGHTS, unix(7)).

The node agent keeps the socket and every gateway gets a copy. So a gateway may drain or die without a refused connection: the
kernel's backlog belongs to the socket, which lives as long as any process holds it. Every holder can pass it on, so a restarted
node agent gets it back from a gateway.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from pathlib import Path

from convoy.errors import ConfigError

BACKLOG = 4096
KEEPER = "keeper.sock"
HANDOVER_SECONDS = 2.0


def prepare_folder(folder: Path) -> None:
    """Creates the node's folder, private to this user. Raises ConfigError when another user owns it or may write there.

    Otherwise another user could put a socket there, and receive clients' connections with their API keys.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owners = {folder.lstat().st_uid, folder.stat().st_uid}  # of a symbolic link and of its target
    if owners != {os.getuid()}:
        raise ConfigError(f"{folder} belongs to another user; set runtime_dir to a folder of your own")
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"other users may write to {folder}; set runtime_dir to a folder of your own, or chmod 700 it"
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); stop the process that uses it, or choose another port"
        ) from error
    return listener


class Handover:
    """Sends a listening socket to every process of this user that connects to the Unix socket `path`."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        self._path = path
        self._listener = listener
        staged = path.with_name(f"{path.name}.{os.getpid()}")
        staged.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(staged))
        self._server.listen(64)
        staged.replace(path)  # atomic: some process listens at `path` at every moment
        self._inode = path.stat().st_ino
        threading.Thread(target=self._serve, name="socket-handover", daemon=True).start()

    def close(self) -> None:
        """Stops the handover; the listening socket stays open."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:  # not the socket of a successor
                self._path.unlink()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                socket.send_fds(peer, [b"s"], [self._listener.fileno()])


def receive_listener(path: Path) -> socket.socket | None:
    """The listening socket from the process that serves the Unix socket `path`; None if no process answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(HANDOVER_SECONDS)
        try:
            connection.connect(str(path))
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        except OSError:
            return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def find_listener(folder: Path) -> socket.socket | None:
    """The node's listening socket, from any process that holds it; None if no process does."""
    paths = [folder / KEEPER, *sorted(folder.glob("gateway-*.sock"))]
    for path in paths:
        listener = receive_listener(path)
        if listener is not None:
            return listener
        if path.name != KEEPER:
            path.unlink(missing_ok=True)  # left behind by a gateway that was killed
    return None


def has_port(listener: socket.socket, host: str, port: int) -> bool:
    """Whether the socket listens on this address."""
    return bool(listener.getsockname()[:2] == (host, port))
