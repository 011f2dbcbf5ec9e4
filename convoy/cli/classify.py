"""`convoy classify`: what a running server sees in image files and folders of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Column, Table

from convoy.cli.options import server_option
from convoy.cli.server import credentials_for
from convoy.errors import NotFound, NotReady

if TYPE_CHECKING:
    from convoy.client import Classification, Client, FileAnswer


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", "-m", "names", multiple=True, help="Model to ask; may be repeated.  [default: every model]")
@click.option("--top-k", "-k", default=1, show_default=True, type=click.IntRange(1), help="Classes per image.")
@click.option("--grpc", help="Ask over gRPC at this address instead, for example 127.0.0.1:8001.")
@server_option
@click.option("--json", "as_json", is_flag=True, help="A line of JSON per image and model, as soon as it is there.")
def classify(
    images: tuple[Path, ...], names: tuple[str, ...], top_k: int, grpc: str | None, url: str, as_json: bool
) -> None:
    """Classify image files, and the images of folders and the folders in them.

    Exits with 1 when an image got no answer; the others are answered all the same.

    \b
    convoy classify cat.jpg
    convoy classify -m squeezenet1_1-imagenet -k 3 *.jpg
    convoy classify photos/ -m squeezenet1_1-imagenet --json | jq .
    """
    from convoy.client import Client

    for folder in filter(Path.is_dir, images):
        _tell_skipped(folder)
    with Client(url, credentials=credentials_for(url)) as discovery:
        wanted = names or tuple(model.name for model in discovery.models())
    show = Lines() if as_json else Rows()
    failed = 0
    secure = "s" if url.startswith("https:") else ""
    with Client(f"grpc{secure}://{grpc}" if grpc else url, credentials=credentials_for(url)) as client:
        for path in images:
            for name in wanted:
                for one in _answers(client, name, path, top_k):
                    if one.answer is None:
                        failed += 1
                        click.echo(f"convoy: {one.path}: {one.error}", err=True)
                    show.add(one, name)
    show.end()
    if failed:
        raise SystemExit(1)


def _tell_skipped(folder: Path) -> None:
    from convoy.client.requests import list_folder

    for path in list_folder(folder)[1]:
        click.echo(f"convoy: {path} is skipped: no image by its name", err=True)


def _answers(client: Client, model: str, path: Path, top_k: int) -> Iterator[FileAnswer]:
    """About a file, or every image of a folder. Raises ConvoyError for what would befall every image alike."""
    from convoy.client import FileAnswer

    if not path.is_dir():
        yield FileAnswer(path, client.classify(model, path, top_k=top_k))
        return
    for one in client.classify_folder(model, path, top_k=top_k, progress=sys.stderr.isatty()):
        if isinstance(one.error, (NotFound, NotReady)):
            raise one.error
        yield one


class Lines:
    """JSON, a line per answer."""

    def add(self, one: FileAnswer, model: str) -> None:
        document: dict[str, Any] = {"image": str(one.path), "model": model}
        click.echo(json.dumps(document | (_document(one.answer) if one.answer else {"error": str(one.error)})))

    def end(self) -> None:
        pass


class Rows:
    """A table, for people."""

    def __init__(self) -> None:
        # A name that is cut is of no use in the next command.
        self._table = Table("image", Column("model", no_wrap=True), "label", "probability", "ms", box=None)

    def add(self, one: FileAnswer, model: str) -> None:
        if one.answer is None:
            return
        for rank, best in enumerate(one.answer.predictions[0].classes):
            cells = (one.path.name, model, f"{one.answer.timings_ms['total']:.1f}") if rank == 0 else ("", "", "")
            self._table.add_row(cells[0], cells[1], best.label, f"{best.probability:.3f}", cells[2])

    def end(self) -> None:
        if self._table.row_count:
            Console().print(self._table)


def _document(answer: Classification) -> dict[str, Any]:
    classes = [
        {"index": one.index, "label": one.label, "probability": one.probability}
        for one in answer.predictions[0].classes
    ]
    return {"classes": classes, "ms": answer.timings_ms["total"]}
