"""`convoy compile`: builds an engine and stores it if it passes the accuracy check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from convoy.cli.options import json_option
from convoy.cli.stored_engine import (
    engine_document,
    engine_option,
    find_artifact,
    get_or_build,
    precision_option,
    print_engine,
    store_option,
)  # fmt: skip

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("compile")
@click.argument("model")
@engine_option
@precision_option
@click.option("--batch", default="1,8,32", show_default=True, help="Batch sizes to check, separated by commas.")
@click.option(
    "--calibration",
    type=FOLDER,
    help="Folder of images for calibration and the accuracy check.  [default: the validation set]",
)
@click.option(
    "--budget", type=click.FloatRange(0, 100, min_open=True), default=0.5, show_default=True,
    help="Largest loss of top-1 accuracy in percentage points, at 95 % confidence.",
)  # fmt: skip
@store_option
@json_option
def compile_model(
    model: str, engine: str, precision: Any, batch: str, calibration: Path | None, budget: float, store: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Build an engine for MODEL, a bundled model or the folder of an artifact, unless the store has it.

    An engine that fails the accuracy check is refused and not stored.

    \b
    convoy compile resnet20-cifar10 --engine openvino --precision int8
    convoy compile artifacts/flowers --precision int8 --calibration flowers/
    """
    from models.engines.backends.registry import find_backend
    from models.engines.build.eval_data import find_eval_source
    from models.engines.spec import EngineSpec
    from models.engines.store.store import open_store

    artifact = find_artifact(model)
    source = find_eval_source(artifact, calibration)
    spec = EngineSpec(artifact, find_backend(engine), precision, source, _batches(batch), budget / 100)
    entry, built = get_or_build(spec, open_store(store))
    if as_json:
        click.echo(json.dumps(engine_document(entry), indent=2))
        return
    print_engine(entry, Console())
    if not built:
        click.echo("it was in the store already")


def _batches(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise click.UsageError(f"--batch {text!r} is not a list of numbers; write 1,8,32") from error
    if sizes[0] < 1:
        raise click.UsageError("--batch: sizes must be at least 1")
    return sizes
