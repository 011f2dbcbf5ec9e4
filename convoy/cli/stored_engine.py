"""Shared code of `convoy compile`, `convoy engines` and `convoy atlas`: options, and building and showing a stored engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.engine_names import BACKENDS, PRECISIONS

if TYPE_CHECKING:
    from models.artifact import Artifact
    from models.engines.spec import EngineSpec
    from models.engines.store.store import Store
    from models.engines.store.stored_engine import StoredEngine

store_option = click.option(
    "--store", default="", help="Engine store: a folder, or a URL such as s3://…  [default: in the user's cache]"
)
engine_option = click.option(
    "--engine",
    type=click.Choice(BACKENDS),
    default="onnxruntime",
    show_default=True,
    help="Runtime that runs the model.",
)
precision_option = click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Number format of the engine."
)


def find_artifact(model: str) -> Artifact:
    """The artifact in a folder, or a bundled one by name. Raises NotFound that names the nearest one."""
    from convoy.errors import unknown
    from models.artifact import BUNDLED, MANIFEST, Artifact

    folder = Path(model)
    if (folder / MANIFEST).is_file():
        return Artifact.load(folder)
    if not (BUNDLED / model / MANIFEST).is_file():
        raise unknown("model", model, sorted(path.parent.name for path in BUNDLED.glob(f"*/{MANIFEST}")))
    return Artifact.load(BUNDLED / model)


def get_or_build(spec: EngineSpec, store: Store) -> tuple[StoredEngine, bool]:
    """The stored engine for a build spec, and whether it had to be built."""
    from convoy.client.progress import steps_bar
    from models.engines.build.builder import build_engine

    present = store.get(spec.key)
    if present is not None:
        return present, False
    with steps_bar(sys.stderr.isatty()) as report:
        return build_engine(spec, store, report), True


def engine_document(entry: StoredEngine) -> dict[str, Any]:
    """The manifest of a stored engine and its folder, JSON-ready."""
    from dataclasses import asdict

    return {"folder": str(entry.folder), **asdict(entry.manifest)}


def engine_version(entry: StoredEngine) -> str:
    """Name and version of the runtime that the engine was built with."""
    return f"{entry.engine} {entry.manifest.recipe['versions'][entry.engine]}"


def print_engine(entry: StoredEngine, console: Console) -> None:
    """Prints a stored engine: its accuracy check, size, build steps and folder."""
    manifest, judgement = entry.manifest, entry.manifest.judgement
    table = Table(box=None, show_header=False)
    rows = {
        "engine": f"{manifest.model}, {engine_version(entry)}, {entry.precision}",
        "status": f"{entry.status}: {judgement['reason']}",
        "judged by": f"{judgement['images']} images; {judgement['evidence']}",
        "top-1": ""
        if judgement["top1"] is None
        else f"{judgement['top1']:.2%}, the reference {judgement['reference_top1']:.2%}",
        "agreement": f"{judgement['agreement']:.2%}, largest logit error {judgement['logit_error']:.2%} of the largest",
        "size": f"{manifest.size / 1e6:.2f} MB, built in {manifest.made['seconds']} s",
        "steps": "\n".join(manifest.made["steps"]),
        "folder": str(entry.folder),
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    console.print(table)


def percent(share: float | None) -> str:
    """Formats a share (0..1) as a percentage; empty for None."""
    return "" if share is None else f"{share:.2%}"
