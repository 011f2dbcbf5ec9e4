"""Access of commands to a running server: credentials, and sending a request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from convoy.credentials import LOCAL_KEY, Credentials, node_folder, read_key
from convoy.errors import InvalidInput, NotReady
from convoy.proxies import is_local

if TYPE_CHECKING:
    import httpx


def credentials_for(url: str) -> Credentials:
    """The credentials among the options of `convoy`. A server that this user started on this machine needs no option: its own
    key file is used.
    """
    options = click.get_current_context().find_object(dict) or {}
    path: Path | None = options.get("key_file") or local_key_file(url)
    key = "" if path is None else read_key(path)
    return Credentials(key, options.get("ca"), options.get("certificate"), options.get("certificate_key"))


def local_key_file(url: str) -> Path | None:
    """The key file that `convoy up` wrote for this user; None for a server elsewhere, or when no server was started."""
    address = urlsplit(url)
    if not is_local(url) or address.scheme not in ("http", "https"):
        return None
    path = node_folder(address.port or 8000) / LOCAL_KEY
    return path if path.exists() else None


def session(url: str, timeout: float) -> httpx.Client:
    """An HTTP client with the credentials for a server. Raises ConfigError."""
    import httpx

    from convoy.client.http_requests import open_client

    return open_client(httpx.Client, url, credentials_for(url), timeout=timeout)


def call(method: str, url: str, path: str, document: Any = None) -> Any:
    """Sends a request and returns the JSON answer. Raises NotReady without a server, InvalidInput with the server's reason."""
    import httpx

    try:
        with session(url, timeout=60) as client:
            answer = client.request(method, path, json=document)
    except httpx.TransportError as error:
        raise NotReady(f"no server at {url} ({error}); start one with: convoy up") from error
    if answer.is_error:
        try:
            reason = answer.json()["error"]
        except (ValueError, KeyError):
            reason = f"{url}{path} answered {answer.status_code}"
        raise InvalidInput(reason)
    return answer.json()
