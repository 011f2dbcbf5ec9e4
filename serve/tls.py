"""TLS of the listeners, from the files named in the configuration."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from convoy.errors import ConfigError
from serve.config.schema import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or later, with client certificates if `client_ca` is set. Raises ConfigError for a missing or invalid file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # includes ssl.SSLError: the file holds no certificate or key
        raise ConfigError(f"listen.tls: {error}; certificate, key and client_ca must name PEM files") from error
    return context


def grpc_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials of grpcio's server. Raises OSError for a missing file."""
    roots = Path(tls.client_ca).read_bytes() if tls.client_ca else None
    key_and_certificate = (Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes())
    return grpc.ssl_server_credentials(
        [key_and_certificate], root_certificates=roots, require_client_auth=bool(tls.client_ca)
    )
