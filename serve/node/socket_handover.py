"""The node's listening HTTP socket: kept by one process, handed to others over a Unix socket (SCM_RIGHTS).

A gateway may drain or die without a refused connection, because the kernel's backlog belongs to the socket and the socket
lives as long as any holder. Every holder can hand it on, so a new keeper takes it back from a gateway.
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
    """Creates the node's folder, private to this user. Raises ConfigError when somebody else owns it or may write there.

    Whoever could put a socket there would be handed connections with everybody's keys.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owners = {folder.lstat().st_uid, folder.stat().st_uid}  # of a link and of what it leads to
    if owners != {os.getuid()}:
        raise ConfigError(f"{folder} belongs to another user; set runtime_dir to a folder of your own")
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"others may write in {folder}; set runtime_dir to a folder of your own, or chmod 700 it")


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
            f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it or choose another port"
        ) from error
    return listener


class Handover:
    """Hands a listening socket to whoever connects to a Unix socket of this user."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        self._path = path
        self._listener = listener
        staged = path.with_name(f"{path.name}.{os.getpid()}")
        staged.unlink(missing_ok=True)
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(staged))
        self._door.listen(64)
        staged.replace(path)  # atomic: there is never a moment without a door
        self._inode = path.stat().st_ino
        threading.Thread(target=self._serve, name="socket-handover", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._door.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._door.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                socket.send_fds(peer, [b"s"], [self._listener.fileno()])


def receive_listener(path: Path) -> socket.socket | None:
    """The listening socket behind a door, or None when nobody answers there."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(HANDOVER_SECONDS)
        try:
            door.connect(str(path))
            _, descriptors, _, _ = socket.recv_fds(door, 1, 1)
        except OSError:
            return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def find_listener(folder: Path) -> socket.socket | None:
    """The node's listening socket from any holder that still lives."""
    doors = [folder / KEEPER, *sorted(folder.glob("gateway-*.sock"))]
    for door in doors:
        listener = receive_listener(door)
        if listener is not None:
            return listener
        if door.name != KEEPER:
            door.unlink(missing_ok=True)  # its gateway died without saying goodbye
    return None


def has_port(listener: socket.socket, host: str, port: int) -> bool:
    return bool(listener.getsockname()[:2] == (host, port))
