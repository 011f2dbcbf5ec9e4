"""What a client shows a server: an API key, certificates. And how keys are made and told."""

from __future__ import annotations

import hashlib
import os
import secrets
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from convoy.errors import ConfigError

if TYPE_CHECKING:
    import grpc

KEY_BYTES = 32
PREFIX = "convoy_"  # so that scanners of repositories and logs can tell one
AUTHORIZATION = "authorization"
LOCAL_KEY = "admin.key"

Value = TypeVar("Value")


def new_key() -> str:
    """A key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest(key: str | bytes) -> bytes:
    """SHA-256 of a key. Its 256 random bits need no salt and no slow hash: there is nothing to guess."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


@dataclass(frozen=True)
class Credentials:
    """Files are in PEM. `ca` replaces the roots that the machine trusts; a certificate is for servers that ask for one."""

    key: str = field(default="", repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Headers over HTTP, metadata over gRPC."""
        return ((AUTHORIZATION, f"Bearer {self.key}"),) if self.key else ()

    def tls(self) -> ssl.SSLContext:
        """For HTTP. Raises ConfigError."""
        return _read(self._tls)

    def channel(self) -> grpc.ChannelCredentials:
        """For gRPC. Raises ConfigError."""
        return _read(self._channel)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.certificate_key)
        return context

    def _channel(self) -> grpc.ChannelCredentials:
        import grpc

        files = (self.ca, self.certificate_key, self.certificate)
        return grpc.ssl_channel_credentials(*(None if one is None else one.read_bytes() for one in files))


def node_folder(http_port: int) -> Path:
    """Where the server of this user on this machine keeps its sockets, pages and LOCAL_KEY, an admin's key."""
    return Path(tempfile.gettempdir()) / f"convoy-{os.getuid()}-{http_port}"


def read_key(path: Path) -> str:
    """The key in a file. Raises ConfigError."""
    return _read(lambda: path.read_text().strip())


def _read(read: Callable[[], Value]) -> Value:
    try:
        return read()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"credentials cannot be read: {error}") from error
