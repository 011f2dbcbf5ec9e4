"""The demo's table: every bundled image, over HTTP and gRPC, with its expected label."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from convoy.client import Client
from convoy.credentials import LOCAL_KEY, Credentials, read_key

if TYPE_CHECKING:
    from serve.config.schema import Settings

STAGES = ("receive", "decode", "queue", "run", "post", "total")


@dataclass(frozen=True)
class Sample:
    """A bundled image and the label that its model must give it."""

    path: Path
    model: str
    expected: str


def load_samples() -> list[Sample]:
    from models.artifact import BUNDLED

    folder = BUNDLED / "samples"
    index = json.loads((folder / "index.json").read_text())
    return [Sample(folder / one["file"], one["model"], one["label"]) for one in index["samples"]]


def classify_samples(settings: Settings, console: Console) -> bool:
    """Prints the table; True when every label is the expected one and both protocols agree."""
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
