"""Options that several commands share, and what a command shows the server that it asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from convoy.credentials import LOCAL_KEY, Credentials, node_folder, read_key
from convoy.proxies import is_local

if TYPE_CHECKING:
    import httpx

server_option = click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The server.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")


def credential_options(command: Any) -> Any:
    """Options of the whole `convoy` command; a key is never an argument, which other users could see."""
    for name, text in (
        ("certificate-key", "Private key of --certificate."),
        ("certificate", "Certificate to show a server that asks for one (mTLS)."),
        ("ca", "Roots that the server's certificate is checked by.  [default: the machine's]"),
        ("key-file", "File with the API key.  [default: on this machine the server's own]"),
    ):
        variable = f"CONVOY_{name.upper().replace('-', '_')}"
        kind = click.Path(exists=True, dir_okay=False, path_type=Path)
        command = click.option(f"--{name}", type=kind, envvar=variable, show_envvar=True, help=text)(command)
    return command


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
