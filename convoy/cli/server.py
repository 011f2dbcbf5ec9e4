"""How a command reaches a running server: its credentials, and one request."""

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
    """What was said to the `convoy` command; a server of this user on this machine gets its own key without asking."""
    said = click.get_current_context().find_object(dict) or {}
    path: Path | None = said.get("key_file") or local_key_file(url)
    key = "" if path is None else read_key(path)
    return Credentials(key, said.get("ca"), said.get("certificate"), said.get("certificate_key"))


def local_key_file(url: str) -> Path | None:
    """Where `convoy up` keeps the key for the user who serves; None when `url` is not here or nothing was started."""
    address = urlsplit(url)
    if not is_local(url) or address.scheme not in ("http", "https"):
        return None
    path = node_folder(address.port or 8000) / LOCAL_KEY
    return path if path.exists() else None


def session(url: str, timeout: float) -> httpx.Client:
    """HTTP to a server, with what it is shown. Raises ConfigError."""
    import httpx

    from convoy.client.http_requests import open_client

    return open_client(httpx.Client, url, credentials_for(url), timeout=timeout)


def call(method: str, url: str, path: str, document: Any = None) -> Any:
    """Asks a server. Raises NotReady when there is none, InvalidInput with its reason when it refuses."""
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
