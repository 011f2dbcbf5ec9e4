"""`convoy compile` and `convoy engines`: engines built once, judged, and kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import json_option
from convoy.cli.up import config_option, settings_of
from convoy.errors import ArtifactError, ConvoyError

if TYPE_CHECKING:
    from models.engines.spec import EngineSpec
    from models.engines.store.store import Store
    from models.engines.store.stored_engine import StoredEngine

ENGINES = ("onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
FOLDER = click.Path(file_okay=False, path_type=Path)

store_option = click.option(
    "--store", default="", help="Folder of the engines, or a URL such as s3://…  [default: in the user's cache]"
)
engine_option = click.option("--engine", type=click.Choice(ENGINES), default="onnxruntime", show_default=True)
precision_option = click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)


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
        click.echo(json.dumps([_document(entry) for entry in entries], indent=2))
        return
    table = Table(
        "model", "engine", "precision", "status", "loses at most", "agreement", "MB", "built", "key", box=None
    )
    for entry in entries:
        judgement, manifest = entry.manifest.judgement, entry.manifest
        table.add_row(
            manifest.model, _engine_version(entry), entry.precision, entry.status, _percent(judgement["loss_bound"]),
            _percent(judgement["agreement"]), f"{manifest.size / 1e6:.2f}", manifest.made["date"], manifest.key[:12],
        )  # fmt: skip
    Console().print(table if entries else f"no engines in {where.root}; build one with: convoy compile MODEL")


@engines.command()
@config_option
@store_option
def build(config: Path | None, store: str) -> None:
    """Build every engine that a configuration asks for and the store lacks, so that a start need not."""
    from models.artifact import Artifact
    from models.engines.store.store import open_store
    from serve.executors.engine_selection import build_spec, serves_artifact

    settings = settings_of(config, None, {})
    where = open_store(store or settings.engines)
    for model in settings.models:
        if serves_artifact(model):
            continue
        order = build_spec(model, Artifact.load(model.folder))
        entry = where.find(order) or _build(order, where)[0]
        click.echo(f"{model.name}: {_engine_version(entry)} {entry.precision}, {entry.status}, {entry.folder}")


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
        document = {"key": order.key, "recipe": order.recipe, "serves": serving and _document(serving)}
        click.echo(json.dumps(document | {"others": others}, indent=2))
        return
    console = Console()
    if serving:
        _print_entry(serving, console)
    else:
        options = f"--engine {engine} --precision {precision}"
        console.print(f"none serves it; build it with: convoy compile {model} {options}")
    for key, reasons in others.items():
        console.print(f"{key[:12]} does not: other {', '.join(reasons)}")


def find_artifact(model: str) -> Any:
    """The artifact of a folder or of a bundled model. Raises NotFound that names the nearest one."""
    from convoy.errors import unknown
    from models.artifact import BUNDLED, MANIFEST, Artifact

    folder = Path(model)
    if (folder / MANIFEST).is_file():
        return Artifact.load(folder)
    if not (BUNDLED / model / MANIFEST).is_file():
        raise unknown("model", model, sorted(one.parent.name for one in BUNDLED.glob(f"*/{MANIFEST}")))
    return Artifact.load(BUNDLED / model)


def _build(order: EngineSpec, store: Store) -> tuple[StoredEngine, bool]:
    """The engine, and whether it had to be built."""
    from convoy.client.progress import steps_bar
    from models.engines.build.builder import build_engine

    present = store.get(order.key)
    if present is not None:
        return present, False
    with steps_bar(sys.stderr.isatty()) as report:
        return build_engine(order, store, report), True


def _batches(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise click.UsageError(f"--batch {text!r} is not a list of numbers such as 1,8,32") from error
    if sizes[0] < 1:
        raise click.UsageError("--batch: a batch holds at least one image")
    return sizes


def _superseded(entry: StoredEngine) -> bool:
    """Whether its engine is here in another version, on the hardware that it was built for."""
    from models.engines.backends.registry import find_backend

    recipe = entry.manifest.recipe
    try:
        backend = find_backend(entry.engine)
    except ConvoyError:
        return False
    return bool(recipe["hardware"] == backend.hardware() and recipe["versions"][entry.engine] != backend.version)


def _document(entry: StoredEngine) -> dict[str, Any]:
    from dataclasses import asdict

    return {"folder": str(entry.folder), **asdict(entry.manifest)}


def _engine_version(entry: StoredEngine) -> str:
    return f"{entry.engine} {entry.manifest.recipe['versions'][entry.engine]}"


def _print_entry(entry: StoredEngine, console: Console) -> None:
    manifest, found = entry.manifest, entry.manifest.judgement
    table = Table(box=None, show_header=False)
    rows = {
        "engine": f"{manifest.model}, {_engine_version(entry)}, {entry.precision}",
        "status": f"{entry.status}: {found['reason']}",
        "judged by": f"{found['images']} images; {found['evidence']}",
        "top-1": "" if found["top1"] is None else f"{found['top1']:.2%}, the reference {found['reference_top1']:.2%}",
        "agreement": f"{found['agreement']:.2%}, largest logit error {found['logit_error']:.2%} of the largest",
        "size": f"{manifest.size / 1e6:.2f} MB, built in {manifest.made['seconds']} s",
        "steps": "\n".join(manifest.made["steps"]),
        "folder": str(entry.folder),
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    console.print(table)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
