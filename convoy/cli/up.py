"""`convoy up`: serves until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import config_option, port_options, settings_of

if TYPE_CHECKING:
    from serve.config.schema import Settings


@click.command()
@config_option
@click.option("--host", help="Address to listen on; 0.0.0.0 accepts other machines.  [default: 127.0.0.1]")
@port_options
def up(config: Path | None, host: str | None, **ports: int | None) -> None:
    """Start the server and serve until Ctrl-C or SIGTERM, which drains it.

    \b
    convoy up
    convoy up --config convoy.yaml --http-port 9000
    """
    console = Console()
    stopped = threading.Event()
    stop_on_signals(stopped)
    # Set again after Ray has started, because Ray installs its own SIGTERM handler, which would exit without draining.
    with running(settings_of(config, host, ports), console, partial(stop_on_signals, stopped)) as settings:
        console.print(addresses(settings))
        console.print("Press Ctrl-C to stop.")
        stopped.wait()
        console.print("draining …")


def stop_on_signals(stopped: threading.Event) -> None:
    """Sets the event on SIGINT and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())


@contextmanager
def running(settings: Settings, console: Console, ray_started: Callable[[], None] = lambda: None) -> Iterator[Settings]:
    """Runs a server for the duration of a block; `ray_started` is passed to `serve.deployments.local.start`."""
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
    """The addresses of the listeners."""
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
