"""`convoy engines`: lists, builds, verifies, removes and explains stored engines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import config_option, json_option, settings_of
from convoy.cli.stored_engine import (
    engine_document,
    engine_option,
    engine_version,
    find_artifact,
    get_or_build,
    percent,
    precision_option,
    print_engine,
    store_option,
)  # fmt: skip
from convoy.errors import ArtifactError, ConvoyError

if TYPE_CHECKING:
    from models.engines.store.stored_engine import StoredEngine


@click.group()
def engines() -> None:
    """Built engines: list, build, verify, remove, explain them."""


@engines.command("ls")
@store_option
@json_option
def list_engines(store: str, as_json: bool) -> None:
    """List what is there. Reads manifests only; `verify` reads everything."""
    from models.engines.store.store import open_store

    where = open_store(store)
    entries = where.entries()
    if as_json:
        click.echo(json.dumps([engine_document(entry) for entry in entries], indent=2))
        return
    table = Table(
        "model", "engine", "precision", "status", "loses at most", "agreement", "MB", "built", "key", box=None
    )
    for entry in entries:
        judgement, manifest = entry.manifest.judgement, entry.manifest
        table.add_row(
            manifest.model, engine_version(entry), entry.precision, entry.status, percent(judgement["loss_bound"]),
            percent(judgement["agreement"]), f"{manifest.size / 1e6:.2f}", manifest.made["date"], manifest.key[:12],
        )  # fmt: skip
    Console().print(table if entries else f"no engines in {where.root}; build one with: convoy compile MODEL")


@engines.command()
@config_option
@store_option
def build(config: Path | None, store: str) -> None:
    """Build every engine that a configuration asks for and the store lacks, so that a start need not."""
    from models.artifact import Artifact
    from models.engines.store.store import open_store
    from serve.executors.engine_selection import order_of, serves_artifact

    settings = settings_of(config, None, {})
    where = open_store(store or settings.engines)
    for model in settings.models:
        if serves_artifact(model):
            continue
        order = order_of(model, Artifact.load(model.folder))
        entry = where.find(order) or get_or_build(order, where)[0]
        click.echo(f"{model.name}: {engine_version(entry)} {entry.precision}, {entry.status}, {entry.folder}")


@engines.command()
@store_option
@json_option
def verify(store: str, as_json: bool) -> None:
    """Read every file and say what is damaged; a server builds that again by itself."""
    from models.engines.store.store import open_store

    where = open_store(store)
    problems = {str(folder): problem for folder, problem in where.verify().items()}
    if as_json:
        click.echo(json.dumps({"engines": len(where.entries()), "damaged": problems}, indent=2))
    else:
        for folder, problem in problems.items():
            click.echo(f"{folder}: {problem}")
        click.echo(f"{len(problems)} damaged; remove them with: convoy engines prune" if problems else "all whole")
    if problems:
        sys.exit(1)


@engines.command()
@store_option
def prune(store: str) -> None:
    """Remove what is damaged, what killed builds left, and what was built for this machine by other versions.

    Latency curves go, too: the next start measures again. What lies behind a URL stays there.
    """
    import shutil

    from models.engines.store.store import open_store

    where = open_store(store)
    doomed = {**dict.fromkeys(where.leftovers(), "left by a build"), **where.verify()}
    doomed |= {entry.folder: "of another version" for entry in where.entries() if _superseded(entry)}
    for folder, reason in doomed.items():
        try:
            where.remove(folder.name)
        except ArtifactError as error:
            click.echo(f"{folder} stays: {error}")
            continue
        shutil.rmtree(folder, ignore_errors=True)
        click.echo(f"{folder}: removed ({reason})")
    where.forget_curves()
    click.echo(f"{len(where.entries())} engines in {where.root}")


@engines.command()
@click.argument("model")
@engine_option
@precision_option
@store_option
@json_option
def explain(model: str, engine: str, precision: Any, store: str, as_json: bool) -> None:
    """Say which engine would serve MODEL, how it was made, and why others that are there would not."""
    from models.engines.backends.registry import find_backend
    from models.engines.build.eval_data import find_eval_source
    from models.engines.spec import EngineSpec
    from models.engines.store.store import open_store

    artifact = find_artifact(model)
    order = EngineSpec(artifact, find_backend(engine), precision, find_eval_source(artifact))
    where = open_store(store)
    serving = where.find(order)
    others = {
        entry.folder.name: order.differences(entry.manifest.recipe) or ["another one goes before it"]
        for entry in where.entries()
        if entry.manifest.model == artifact.manifest.name and entry != serving
    }
    if as_json:
        document = {"key": order.key, "recipe": order.recipe, "serves": serving and engine_document(serving)}
        click.echo(json.dumps(document | {"others": others}, indent=2))
        return
    console = Console()
    if serving:
        print_engine(serving, console)
    else:
        options = f"--engine {engine} --precision {precision}"
        console.print(f"none serves it; build it with: convoy compile {model} {options}")
    for key, reasons in others.items():
        console.print(f"{key[:12]} does not: other {', '.join(reasons)}")


def _superseded(entry: StoredEngine) -> bool:
    """Whether its engine is here in another version, on the hardware that it was built for."""
    from models.engines.backends.registry import find_backend

    recipe = entry.manifest.recipe
    try:
        backend = find_backend(entry.engine)
    except ConvoyError:
        return False
    return bool(recipe["hardware"] == backend.hardware() and recipe["versions"][entry.engine] != backend.version)
