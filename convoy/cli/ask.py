"""Commands that ask a running server."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table

from convoy.cli.architectures import list_architectures, show_architecture

server_option = click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The server.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", "-m", "names", multiple=True, help="Model to ask; may be repeated.  [default: every model]")
@click.option("--top-k", "-k", default=1, show_default=True, type=click.IntRange(1), help="Classes per image.")
@click.option("--grpc", help="Ask over gRPC at this address instead, for example 127.0.0.1:8001.")
@server_option
@json_option
def classify(
    images: tuple[Path, ...], names: tuple[str, ...], top_k: int, grpc: str | None, url: str, as_json: bool
) -> None:
    """Classify image files.

    \b
    convoy classify cat.jpg
    convoy classify -m squeezenet1_1-imagenet -k 3 *.jpg
    convoy classify digit.png -m lenet5-mnist --json | jq .
    """
    from convoy.client import Client

    with Client(url) as discovery:
        wanted = names or tuple(model.name for model in discovery.models())
    table = Table("image", _names(), "label", "probability", "ms", box=None)
    documents = []
    with Client(f"grpc://{grpc}" if grpc else url) as client:
        for path in images:
            for name in wanted:
                answer = client.classify(name, path, top_k=top_k)
                for rank, best in enumerate(answer.predictions[0].classes):
                    cells = (path.name, name, f"{answer.timings_ms['total']:.1f}") if rank == 0 else ("", "", "")
                    table.add_row(cells[0], cells[1], best.label, f"{best.probability:.3f}", cells[2])
                    documents.append(
                        {"image": str(path), "model": name, "label": best.label, "probability": best.probability}
                    )
    if as_json:
        click.echo(json.dumps(documents, indent=2))
    else:
        Console().print(table)


@click.command()
@click.argument("name", required=False)
@click.option(
    "--architectures", is_flag=True, help="List the networks that can be built, instead of the server's models."
)
@server_option
@json_option
def models(name: str | None, architectures: bool, url: str, as_json: bool) -> None:
    """List the models of a running server, or show the architecture NAME layer by layer.

    \b
    convoy models                              what the server offers
    convoy models --architectures              every network of the zoo, with counts and accuracy
    convoy models resnet50                     its layers and what each takes its input from
    """
    if name:
        show_architecture(name)
    elif architectures:
        list_architectures(as_json)
    else:
        _list_served(url, as_json)


def _list_served(url: str, as_json: bool) -> None:
    import httpx

    from convoy.errors import NotReady

    try:
        answer = httpx.get(f"{url}/v1/models", timeout=10)
    except httpx.TransportError as error:
        raise NotReady(f"no server at {url} ({error}); start one with: convoy up") from error
    documents = answer.raise_for_status().json()["models"]
    if as_json:
        click.echo(json.dumps(documents, indent=2))
        return
    table = Table(_names(), "version", "data set", "classes", "top-1", "params", "MACs", "placement", box=None)
    for one in documents:
        top1 = one["accuracy"].get("top1")
        table.add_row(
            one["name"],
            one["version"],
            one["dataset"],
            str(one["classes"]),
            f"{top1:.2%}" if isinstance(top1, float) else "unknown",
            f"{one['params']:,}",
            f"{one['macs'] / 1e6:,.1f} M",
            one["placement"],
        )
    Console().print(table)


def _names() -> Column:
    """A column of model names whole: one that is cut is of no use in the next command."""
    return Column("model", no_wrap=True)
