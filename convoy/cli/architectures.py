"""`convoy models --architectures` and `convoy models NAME`: the zoo, without a server."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from convoy.errors import ConvoyError


def list_architectures(as_json: bool) -> None:
    """Every architecture with its paper, counts, published accuracy and the checkpoints that are here."""
    from models.architectures_page import bundled_manifests
    from models.facts import read_facts

    manifests = bundled_manifests()
    rows = [(one, [m.name for m in manifests if m.architecture == one.name]) for one in read_facts().values()]
    if as_json:
        click.echo(json.dumps([one.to_document() | {"checkpoints": names} for one, names in rows], indent=1))
        return
    table = Table(
        "architecture", "family", "paper", "year", "params", "GMACs", "published", "checkpoints here", box=None
    )
    table.columns[0].no_wrap = True
    for one, names in rows:
        top1 = "" if one.published_top1 is None else f"{one.published_top1:.2%}"
        counts = (f"{one.params:,}", f"{one.macs / 1e9:.3f}")
        table.add_row(one.name, one.family, one.paper, str(one.year), *counts, top1, ", ".join(names))
    Console().print(table)


def show_architecture(name: str) -> None:
    """Its layers, and a picture of what each takes its input from."""
    try:
        from models.layers_table import layers_table
    except ModuleNotFoundError as error:
        raise ConvoyError(
            f"building a network needs {error.name}; install it with: pip install 'convoy-serve[train]'"
        ) from error
    click.echo(layers_table(name))
