"""`convoy demo`: serves, classifies every bundled image over HTTP and gRPC, compares the labels, stops."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import config_option, port_options, settings_of
from convoy.cli.up import addresses, running

if TYPE_CHECKING:
    from serve.config.schema import Settings

STAGES = ("receive", "decode", "queue", "run", "post", "total")


@click.command()
@config_option
@port_options
def demo(config: Path | None, **ports: int | None) -> None:
    """Start a server, classify the bundled images over HTTP and gRPC, print the answers, stop.

    Exits with 1 when an answer is not the expected label. Needs free ports, and takes about a minute.

    \b
    convoy demo
    convoy demo --http-port 9000 --grpc-port 9001 --metrics-port 9002
    """
    console = Console() if sys.stdout.isatty() else Console(width=140)
    with running(settings_of(config, None, ports), console) as settings:
        right = classify_samples(settings, console)
        console.print(addresses(settings))
    console.print("stopped cleanly")
    if not right:
        raise SystemExit(1)


@dataclass(frozen=True)
class Sample:
    """A bundled image, and the label that its model must find."""

    path: Path
    model: str
    expected: str


def load_samples() -> list[Sample]:
    """The bundled images with their expected labels."""
    from models.artifact import BUNDLED

    folder = BUNDLED / "samples"
    index = json.loads((folder / "index.json").read_text())
    return [Sample(folder / entry["file"], entry["model"], entry["label"]) for entry in index["samples"]]


def classify_samples(settings: Settings, console: Console) -> bool:
    """Prints a table of the answers; True when every label is the expected one over both protocols."""
    from convoy.client import Client
    from convoy.credentials import LOCAL_KEY, Credentials, read_key

    listen = settings.listen
    secure = "s" if listen.tls else ""
    targets = {
        "HTTP": f"http{secure}://{listen.host}:{listen.http_port}",
        "gRPC": f"grpc{secure}://{listen.host}:{listen.grpc_port}",
    }
    credentials = Credentials(
        read_key(settings.node_dir / LOCAL_KEY), Path(listen.tls.certificate) if listen.tls else None
    )
    table = Table(
        "image", "model", "over", "label", "probability", "shows", *STAGES, box=None, title="milliseconds by stage"
    )
    wrong = 0
    for protocol, target in targets.items():
        with Client(target, credentials=credentials) as client:
            for sample in load_samples():
                answer = client.classify(sample.model, sample.path, top_k=1)
                best = answer.predictions[0].classes[0]
                right = best.label == sample.expected
                wrong += not right
                verdict = f"[green]{sample.expected}[/green]" if right else f"[red]{sample.expected}[/red]"
                times = [f"{answer.timings_ms.get(stage, 0):.2f}" for stage in STAGES]
                cells = (sample.path.name, sample.model, protocol, best.label, f"{best.probability:.3f}", verdict)
                table.add_row(*cells, *times)
    console.print(table)
    return wrong == 0
