"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convoy.cli.import_path import check_import_path

if TYPE_CHECKING:
    from serve.config.schema import Settings

server_option = click.option(
    "--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address of the server."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
config_option = click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="A convoy.yaml.  [default: the bundled models]"
)


def port_options(command: Any) -> Any:
    """Options for the ports of the three listeners."""
    for name, number in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        option = click.option(
            f"--{name}-port", type=click.IntRange(1, 65535), help=f"Port of the {name} listener.  [default: {number}]"
        )
        command = option(command)
    return command


def credential_options(command: Any) -> Any:
    """Options of the `convoy` group. A key is read from a file, because other users can see the arguments of a process."""
    for name, text in (
        ("certificate-key", "Private key of --certificate, a PEM file."),
        ("certificate", "Client certificate for servers that require one (mTLS), a PEM file."),
        ("ca", "CA certificates that the server's certificate must chain to.  [default: the system's]"),
        ("key-file", "File with the API key.  [default: the local admin key, for a server on this machine]"),
    ):
        variable = f"CONVOY_{name.upper().replace('-', '_')}"
        kind = click.Path(exists=True, dir_okay=False, path_type=Path)
        command = click.option(f"--{name}", type=kind, envvar=variable, show_envvar=True, help=text)(command)
    return command


def settings_of(config: Path | None, host: str | None, ports: dict[str, int | None]) -> Settings:
    """The settings of a file (None: the defaults) with the host and ports of the command line. Raises ConfigError."""
    check_import_path()  # before the first import of a package that a file of the user may hide
    from serve.config.loading import load_settings, parse_settings

    settings = load_settings(config)
    listen = {name: port for name, port in ports.items() if port is not None} | ({"host": host} if host else {})
    if not listen:
        return settings
    return parse_settings(settings.model_dump() | {"listen": settings.listen.model_dump() | listen}, "command line")
