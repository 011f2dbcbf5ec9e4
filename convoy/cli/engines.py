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
    """Manage the engine store: list, build, verify, prune and explain engines.

    \b
    convoy engines ls
    convoy engines build -c convoy.yaml
    convoy engines explain resnet20-cifar10 --precision int8
    """


@engines.command("ls")
@store_option
@json_option
def list_engines(store: str, as_json: bool) -> None:
    """List the stored engines by their manifests; `verify` also reads the files."""
    from models.engines.store.store import open_store

    engine_store = open_store(store)
    entries = engine_store.entries()
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
    Console().print(table if entries else f"no engines in {engine_store.root}; build one with: convoy compile MODEL")


@engines.command()
@config_option
@store_option
def build(config: Path | None, store: str) -> None:
    """Build every engine that a configuration needs and the store lacks, so that a server starts faster."""
    from models.artifact import Artifact
    from models.engines.store.store import open_store
    from serve.executors.engine_selection import build_spec, serves_artifact

    settings = settings_of(config, None, {})
    engine_store = open_store(store or settings.engines)
    for model in settings.models:
        if serves_artifact(model):
            continue
        spec = build_spec(model, Artifact.load(model.folder))
        entry = engine_store.find(spec) or get_or_build(spec, engine_store)[0]
        click.echo(f"{model.name}: {engine_version(entry)} {entry.precision}, {entry.status}, {entry.folder}")


@engines.command()
@store_option
@json_option
def verify(store: str, as_json: bool) -> None:
    """Check the hash of every file and list damaged engines, which a server rebuilds by itself; exit with 1 if there are any."""
    from models.engines.store.store import open_store

    engine_store = open_store(store)
    problems = {str(folder): problem for folder, problem in engine_store.verify().items()}
    if as_json:
        click.echo(json.dumps({"engines": len(engine_store.entries()), "damaged": problems}, indent=2))
    else:
        for folder, problem in problems.items():
            click.echo(f"{folder}: {problem}")
        click.echo(
            f"{len(problems)} damaged; remove them with: convoy engines prune" if problems else "no engine is damaged"
        )
    if problems:
        sys.exit(1)


@engines.command()
@store_option
def prune(store: str) -> None:
    """Remove damaged engines, leftovers of killed builds, and engines that other runtime versions built for this machine.

    Latency curves are removed too, and measured again by the next start. A shared store behind a URL is not changed.
    """
    import shutil

    from models.engines.store.store import open_store

    engine_store = open_store(store)
    to_remove = {**dict.fromkeys(engine_store.leftovers(), "left by a build"), **engine_store.verify()}
    to_remove |= {entry.folder: "of another version" for entry in engine_store.entries() if _superseded(entry)}
    for folder, reason in to_remove.items():
        try:
            engine_store.remove(folder.name)
        except ArtifactError as error:
            click.echo(f"{folder} not removed: {error}")
            continue
        shutil.rmtree(folder, ignore_errors=True)
        click.echo(f"{folder}: removed ({reason})")
    engine_store.forget_curves()
    click.echo(f"{len(engine_store.entries())} engines in {engine_store.root}")


@engines.command()
@click.argument("model")
@engine_option
@precision_option
@store_option
@json_option
def explain(model: str, engine: str, precision: Any, store: str, as_json: bool) -> None:
    """Show which stored engine would serve MODEL, how it was built and checked, and why other engines of MODEL would not."""
    from models.engines.backends.registry import find_backend
    from models.engines.build.eval_data import find_eval_source
    from models.engines.spec import EngineSpec
    from models.engines.store.store import open_store

    artifact = find_artifact(model)
    spec = EngineSpec(artifact, find_backend(engine), precision, find_eval_source(artifact))
    engine_store = open_store(store)
    serving = engine_store.find(spec)
    others = {
        entry.folder.name: spec.differences(entry.manifest.recipe) or ["another engine is preferred"]
        for entry in engine_store.entries()
        if entry.manifest.model == artifact.manifest.name and entry != serving
    }
    if as_json:
        document = {"key": spec.key, "recipe": spec.recipe, "serves": serving and engine_document(serving)}
        click.echo(json.dumps(document | {"others": others}, indent=2))
        return
    console = Console()
    if serving:
        print_engine(serving, console)
    else:
        options = f"--engine {engine} --precision {precision}"
        console.print(f"no stored engine serves it; build one with: convoy compile {model} {options}")
    for key, reasons in others.items():
        console.print(f"{key[:12]} does not serve it; different: {', '.join(reasons)}")


def _superseded(entry: StoredEngine) -> bool:
    """Whether another version of its runtime is installed on the hardware that it was built for."""
    from models.engines.backends.registry import find_backend

    recipe = entry.manifest.recipe
    try:
        backend = find_backend(entry.engine)
    except ConvoyError:
        return False
    return bool(recipe["hardware"] == backend.hardware() and recipe["versions"][entry.engine] != backend.version)
