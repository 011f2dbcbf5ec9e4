"""`convoy models`: what a running server offers, and which networks there are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import click
from rich.console import Console
from rich.table import Column, Table

from convoy.cli.architectures import list_architectures, show_architecture
from convoy.cli.options import json_option, server_option, session


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
    from convoy.http_calls import checked

    try:
        with session(url, timeout=10) as client:
            answer = checked(client.get("/v1/models"))
    except httpx.TransportError as error:
        raise NotReady(f"no server at {url} ({error}); start one with: convoy up") from error
    documents = answer.json()["models"]
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
    console = Console()
    console.print(table)
    print_problems(answer.json().get("problems", []), console)


def print_problems(problems: Iterable[Mapping[str, str]], console: Console) -> None:
    """What does not serve as it is configured, and why: entries of the repository's index."""
    for one in problems:
        console.print(f"{one['name']} is {one['state']}: {one['reason']}", markup=False, style="red")


def _names() -> Column:
    """A column of model names whole: one that is cut is of no use in the next command."""
    return Column("model", no_wrap=True)
