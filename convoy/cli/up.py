"""Commands that start a server or show its plan."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.import_path import check_import_path

if TYPE_CHECKING:
    from serve.config.schema import Settings

config_option = click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="A convoy.yaml; without it the bundled models are served."
)


def port_options(command: Any) -> Any:
    for name, number in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        option = click.option(f"--{name}-port", type=click.IntRange(1, 65535), help=f"{name} port  [default: {number}]")
        command = option(command)
    return command


@click.command()
@config_option
@click.option("--host", help="Address to listen on; 0.0.0.0 to be reachable from outside.  [default: 127.0.0.1]")
@port_options
def up(config: Path | None, host: str | None, **ports: int | None) -> None:
    """Serve until Ctrl-C.

    \b
    convoy up
    convoy up --config convoy.yaml --http-port 9000
    """
    console = Console()
    stopped = threading.Event()
    stop_on_signals(stopped)
    # Again when Ray has started: it takes SIGTERM for itself, and would end without a drain.
    with running(settings_of(config, host, ports), console, partial(stop_on_signals, stopped)) as settings:
        console.print(addresses(settings))
        console.print("Ctrl-C stops it.")
        stopped.wait()
        console.print("draining …")


def stop_on_signals(stopped: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())


@click.command()
@config_option
@port_options
def demo(config: Path | None, **ports: int | None) -> None:
    """Start, classify the bundled images over HTTP and gRPC, show the answers, stop."""
    from convoy.cli.demo import classify_samples

    console = Console() if sys.stdout.isatty() else Console(width=140)
    with running(settings_of(config, None, ports), console) as settings:
        right = classify_samples(settings, console)
        console.print(addresses(settings))
    console.print("stopped cleanly")
    if not right:
        raise SystemExit(1)


def settings_of(config: Path | None, host: str | None, ports: dict[str, int | None]) -> Settings:
    """The configuration file's settings with the command line's listeners. Raises ConfigError."""
    check_import_path()  # before the first import of a package that may be hidden
    from serve.config.loading import load_settings, parse_settings

    settings = load_settings(config)
    listen = {name: port for name, port in ports.items() if port is not None} | ({"host": host} if host else {})
    if not listen:
        return settings
    return parse_settings(settings.model_dump() | {"listen": settings.listen.model_dump() | listen}, "command line")


@contextmanager
def running(settings: Settings, console: Console, ray_started: Callable[[], None] = lambda: None) -> Iterator[Settings]:
    """A server for the length of a block; `ray_started` as in `serve.deployments.local.start`."""
    from convoy.cli.models import print_problems
    from convoy.wire.oip_metadata import repository_index
    from serve.deployments import local

    with console.status("starting Ray and the models …"):
        local.start(settings, ray_started)
    try:
        print_problems(repository_index(local.problems()), console)
        yield settings
    finally:
        local.stop()


def addresses(settings: Settings) -> Table:
    """Where everything is."""
    listen = settings.listen
    table = Table(box=None, show_header=False)
    table.add_row("page", f"{listen.http_scheme}://{listen.host}:{listen.http_port}/")
    table.add_row("classify", f"POST http://{listen.host}:{listen.http_port}/v1/models/MODEL/classify")
    table.add_row(
        "inference protocol",
        f"{listen.http_scheme}://{listen.host}:{listen.http_port}/v2, gRPC {listen.host}:{listen.grpc_port}",
    )
    table.add_row("metrics", f"{listen.http_scheme}://{listen.host}:{listen.metrics_port}/metrics")
    return table
