"""`convoy models`: the models of a running server, and the architectures of the zoo."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import click
from rich.console import Console
from rich.table import Column, Table

from convoy.cli.options import json_option, server_option
from convoy.cli.server import session
from convoy.errors import ConvoyError


@click.command()
@click.argument("name", required=False)
@click.option("--architectures", is_flag=True, help="List the architectures of the zoo instead of the served models.")
@server_option
@json_option
def models(name: str | None, architectures: bool, url: str, as_json: bool) -> None:
    """List the models of a running server, or show the layers of the architecture NAME.

    \b
    convoy models                              the served models
    convoy models --architectures              every architecture, with counts and published accuracy
    convoy models resnet50                     its layers and their inputs
    """
    if name:
        show_architecture(name)
    elif architectures:
        list_architectures(as_json)
    else:
        _list_served(url, as_json)


def _list_served(url: str, as_json: bool) -> None:
    import httpx

    from convoy.client.http_requests import checked
    from convoy.errors import NotReady

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
    for entry in documents:
        top1 = entry["accuracy"].get("top1")
        table.add_row(
            entry["name"],
            entry["version"],
            entry["dataset"],
            str(entry["classes"]),
            f"{top1:.2%}" if isinstance(top1, float) else "unknown",
            f"{entry['params']:,}",
            f"{entry['macs'] / 1e6:,.1f} M",
            entry["placement"],
        )
    console = Console()
    console.print(table)
    print_problems(answer.json().get("problems", []), console)


def print_problems(problems: Iterable[Mapping[str, str]], console: Console) -> None:
    """Prints models that are not served as configured, from entries of the repository index."""
    for entry in problems:
        console.print(f"{entry['name']} is {entry['state']}: {entry['reason']}", markup=False, style="red")


def _names() -> Column:
    """A column of model names, never truncated, because users copy them into the next command."""
    return Column("model", no_wrap=True)


def list_architectures(as_json: bool) -> None:
    """Prints every architecture with its paper, counts, published accuracy and bundled checkpoints."""
    from models.architectures.facts import read_facts
    from models.architectures.page import bundled_manifests

    manifests = bundled_manifests()
    rows = [(facts, [m.name for m in manifests if m.architecture == facts.name]) for facts in read_facts().values()]
    if as_json:
        click.echo(json.dumps([facts.to_document() | {"checkpoints": names} for facts, names in rows], indent=1))
        return
    table = Table(
        "architecture", "family", "paper", "year", "params", "GMACs", "published", "checkpoints here", box=None
    )
    table.columns[0].no_wrap = True
    for facts, names in rows:
        top1 = "" if facts.published_top1 is None else f"{facts.published_top1:.2%}"
        counts = (f"{facts.params:,}", f"{facts.macs / 1e9:.3f}")
        table.add_row(facts.name, facts.family, facts.paper, str(facts.year), *counts, top1, ", ".join(names))
    Console().print(table)


def show_architecture(name: str) -> None:
    """Prints the layers of an architecture and their inputs."""
    try:
        from models.architectures.layers_table import layers_table
    except ModuleNotFoundError as error:
        raise ConvoyError(
            f"building a network needs {error.name}; install it with: pip install 'convoy-serve[train]'"
        ) from error
    click.echo(layers_table(name))
