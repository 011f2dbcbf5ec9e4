"""What `convoy compile`, `convoy engines` and `convoy atlas` share: options, and how a stored engine is built and shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from models.artifact import Artifact
    from models.engines.spec import EngineSpec
    from models.engines.store.store import Store
    from models.engines.store.stored_engine import StoredEngine

ENGINES = ("onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

store_option = click.option(
    "--store", default="", help="Folder of the engines, or a URL such as s3://…  [default: in the user's cache]"
)
engine_option = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="onnxruntime",
    show_default=True,
    help="Runtime that runs the model.",
)
precision_option = click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="Number format of the engine."
)


def find_artifact(model: str) -> Artifact:
    """The artifact of a folder or of a bundled model. Raises NotFound that names the nearest one."""
    from convoy.errors import unknown
    from models.artifact import BUNDLED, MANIFEST, Artifact

    folder = Path(model)
    if (folder / MANIFEST).is_file():
        return Artifact.load(folder)
    if not (BUNDLED / model / MANIFEST).is_file():
        raise unknown("model", model, sorted(one.parent.name for one in BUNDLED.glob(f"*/{MANIFEST}")))
    return Artifact.load(BUNDLED / model)


def get_or_build(order: EngineSpec, store: Store) -> tuple[StoredEngine, bool]:
    """The engine, and whether it had to be built."""
    from convoy.client.progress import steps_bar
    from models.engines.build.builder import build_engine

    present = store.get(order.key)
    if present is not None:
        return present, False
    with steps_bar(sys.stderr.isatty()) as report:
        return build_engine(order, store, report), True


def engine_document(entry: StoredEngine) -> dict[str, Any]:
    from dataclasses import asdict

    return {"folder": str(entry.folder), **asdict(entry.manifest)}


def engine_version(entry: StoredEngine) -> str:
    return f"{entry.engine} {entry.manifest.recipe['versions'][entry.engine]}"


def print_engine(entry: StoredEngine, console: Console) -> None:
    manifest, found = entry.manifest, entry.manifest.judgement
    table = Table(box=None, show_header=False)
    rows = {
        "engine": f"{manifest.model}, {engine_version(entry)}, {entry.precision}",
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


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
