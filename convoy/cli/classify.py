"""`convoy classify`: classifies image files and folders with a running server."""

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

SKIPPED = 20  # files of a folder named as skipped, at most


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", "-m", "names", multiple=True, help="Model to use; repeatable.  [default: every served model]")
@click.option(
    "--top-k", "-k", default=1, show_default=True, type=click.IntRange(1), help="Number of classes per image."
)
@click.option("--grpc", help="Use gRPC at this address, for example 127.0.0.1:8001.  [default: HTTP]")
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per image and model, as results arrive.")
def classify(
    images: tuple[Path, ...], names: tuple[str, ...], top_k: int, grpc: str | None, url: str, as_json: bool
) -> None:
    """Classify image files, and all images in folders, recursively.

    An image that fails does not stop the others; the command then exits with 1.

    \b
    convoy classify cat.jpg
    convoy classify -m squeezenet1_1-imagenet -k 3 *.jpg
    convoy classify photos/ -m squeezenet1_1-imagenet --json | jq .
    """
    from convoy.client import Client

    for folder in filter(Path.is_dir, images):
        _print_skipped(folder)
    with Client(url, credentials=credentials_for(url)) as discovery:
        wanted = names or tuple(model.name for model in discovery.models())
    show = Lines() if as_json else Rows()
    failed = 0
    secure = "s" if url.startswith("https:") else ""
    with Client(f"grpc{secure}://{grpc}" if grpc else url, credentials=credentials_for(url)) as client:
        for path in images:
            for name in wanted:
                for result in _answers(client, name, path, top_k):
                    if result.answer is None:
                        failed += 1
                        click.echo(f"convoy: {result.path}: {result.error}", err=True)
                    show.add(result, name)
    show.end()
    if failed:
        raise SystemExit(1)


def _print_skipped(folder: Path) -> None:
    from convoy.image_files import one_line, split_images

    skipped = split_images(folder.rglob("*"))[1]
    for path in skipped[:SKIPPED]:
        click.echo(f"convoy: {one_line(path)} is skipped: its suffix is not that of an image", err=True)
    if len(skipped) > SKIPPED:
        click.echo(f"convoy: {len(skipped) - SKIPPED} more files are skipped", err=True)


def _answers(client: Client, model: str, path: Path, top_k: int) -> Iterator[FileAnswer]:
    """Results of a file or of every image of a folder. Raises ConvoyError for errors that would hit every image."""
    from convoy.client import FileAnswer

    if not path.is_dir():
        yield FileAnswer(path, client.classify(model, path, top_k=top_k))
        return
    for result in client.classify_folder(model, path, top_k=top_k, progress=sys.stderr.isatty()):
        if isinstance(result.error, (NotFound, NotReady)):
            raise result.error
        yield result


class Lines:
    """Prints JSON, one line per result."""

    def add(self, result: FileAnswer, model: str) -> None:
        document: dict[str, Any] = {"image": str(result.path), "model": model}
        click.echo(json.dumps(document | (_document(result.answer) if result.answer else {"error": str(result.error)})))

    def end(self) -> None:
        pass


class Rows:
    """Prints a table after the last result."""

    def __init__(self) -> None:
        # Model names are not truncated, because users copy them into the next command.
        self._table = Table("image", Column("model", no_wrap=True), "label", "probability", "ms", box=None)

    def add(self, result: FileAnswer, model: str) -> None:
        if result.answer is None:
            return
        for rank, best in enumerate(result.answer.predictions[0].classes):
            cells = (result.path.name, model, f"{result.answer.timings_ms['total']:.1f}") if rank == 0 else ("", "", "")
            self._table.add_row(cells[0], cells[1], best.label, f"{best.probability:.3f}", cells[2])

    def end(self) -> None:
        if self._table.row_count:
            Console().print(self._table)


def _document(answer: Classification) -> dict[str, Any]:
    classes = [
        {"index": best.index, "label": best.label, "probability": best.probability}
        for best in answer.predictions[0].classes
    ]
    return {"classes": classes, "ms": answer.timings_ms["total"]}
