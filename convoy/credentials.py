"""Credentials of a client: API keys and TLS certificates. Also how keys are generated and hashed."""

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
PREFIX = "convoy_"  # lets secret scanners recognise a key
AUTHORIZATION = "authorization"
LOCAL_KEY = "admin.key"

Value = TypeVar("Value")


def new_key() -> str:
    """A new key with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest(key: str | bytes) -> bytes:
    """SHA-256 of a key. A key has 256 random bits and cannot be guessed, so neither a salt nor a slow hash is needed."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


@dataclass(frozen=True)
class Credentials:
    """An API key and PEM files. `ca` replaces the system's root certificates; `certificate` is for mutual TLS."""

    key: str = field(default="", repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The authorization header, as HTTP headers or gRPC metadata."""
        return ((AUTHORIZATION, f"Bearer {self.key}"),) if self.key else ()

    def tls(self) -> ssl.SSLContext:
        """TLS settings for HTTP. Raises ConfigError for files that cannot be read."""
        return _read(self._tls)

    def channel(self) -> grpc.ChannelCredentials:
        """TLS settings for gRPC. Raises ConfigError for files that cannot be read."""
        return _read(self._channel)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.certificate_key)
        return context

    def _channel(self) -> grpc.ChannelCredentials:
        import grpc

        files = (self.ca, self.certificate_key, self.certificate)
        return grpc.ssl_channel_credentials(*(None if file is None else file.read_bytes() for file in files))


def node_folder(http_port: int) -> Path:
    """The folder of this user's server on this machine: sockets, metrics files, and an admin key in LOCAL_KEY."""
    return Path(tempfile.gettempdir()) / f"convoy-{os.getuid()}-{http_port}"


def read_key(path: Path) -> str:
    """Reads a key from a file. Raises ConfigError."""
    return _read(lambda: path.read_text().strip())


def _read(read: Callable[[], Value]) -> Value:
    try:
        return read()
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise ConfigError(f"credentials cannot be read: {error}") from error
