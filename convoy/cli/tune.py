"""`convoy tune`: measures the fastest configuration of a model on this machine and writes it into convoy.yaml."""

from __future__ import annotations

import datetime
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import json_option
from convoy.errors import ConfigError

if TYPE_CHECKING:
    from serve.config.schema import Settings
    from serve.planning.tuning import Measured, Skipped

DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(ms|s)")
# The comments that `_evidence` writes: the first one names the model.
TITLE = re.compile(rf"convoy tune (?P<model>\S+) --slo-p99 {DURATION.pattern}, \d{{4}}-\d\d-\d\d, .*")
SUMMARY = r"[\w-]+ \w+, \d+ threads, batches of \d+: [\d,]+ images/s, p99 of \d+ runs [\d.]+ ms"
EVIDENCE = re.compile(rf"(?:chosen: )?{SUMMARY}|[\w-]+ \w+: too slow even for one image")


@click.command()
@click.argument("model")
@click.option(
    "--slo-p99",
    "slo",
    required=True,
    help="Latency target: time within which the engine must answer 99 % of requests, such as 20ms or 0.5s.",
)
@click.option(
    "--config", "-c", type=click.Path(dir_okay=False, path_type=Path), default="convoy.yaml", show_default=True,
    help="File to change; created if it does not exist.",
)  # fmt: skip
@click.option("--seconds", default=1.0, show_default=True, help="Measuring time of each batch size.")
@click.option("--dry-run", is_flag=True, help="Print the result without writing it.")
@json_option
def tune(model: str, slo: str, config: Path, seconds: float, dry_run: bool, as_json: bool) -> None:
    """Measure every engine, precision, thread count and batch size for MODEL, and write the fastest into the configuration.

    A request may have to wait for the run in progress before its own run, so a run may take half of the target. Only engines that
    pass the accuracy check are measured; missing ones are built first. In the file only the keys engine, precision, threads,
    max_batch and target_ms of the model change, and comments with the measurements are added above it, in place of those of
    an earlier run.

    \b
    convoy tune resnet20-cifar10 --slo-p99 20ms
    """
    from convoy.client.progress import steps_bar
    from models.engines.store.store import open_store
    from serve.config.thread_plan import available_cores
    from serve.planning.tuning import choose, explore

    slo_seconds = _seconds(slo)
    settings = _settings(config, model)
    config_of_model = next(entry for entry in settings.models if entry.name == model)
    if not dry_run:
        _check_file(config, model)
    cores = settings.cores or available_cores()
    with steps_bar(sys.stderr.isatty()) as report:
        measured, skipped = explore(config_of_model, open_store(settings.engines), cores, slo_seconds, seconds, report)
    best = choose(measured, slo_seconds)
    changes = {
        "engine": best.engine,
        "precision": best.precision,
        "threads": best.threads,
        "max_batch": best.batch,
        "target_ms": round(slo_seconds * 500, 3),
    }
    if as_json:
        document = {"chosen": changes, "measured": [asdict(result) for result in measured]}
        click.echo(json.dumps(document | {"skipped": [asdict(entry) for entry in skipped]}, indent=2))
    else:
        _print(measured, skipped, best, Console())
    if not dry_run:
        _write(config, model, changes, _evidence(model, best, measured, slo))
        click.echo(f"{config}: {model} is now served by {best.engine} {best.precision}", err=as_json)


def _seconds(text: str) -> float:
    match = DURATION.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise click.UsageError(f"--slo-p99 {text!r} is not a time; write 20ms or 0.5s")
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


def _settings(config: Path, model: str) -> Settings:
    """The settings of the file, or the defaults. Raises NotFound when they do not name the model."""
    from convoy.errors import unknown
    from serve.config.loading import load_settings

    settings = load_settings(config if config.exists() else None)
    names = [entry.name for entry in settings.models]
    if model not in names:
        raise unknown("model", model, names)
    return settings


def _check_file(config: Path, model: str) -> None:
    """Raises ConfigError if the file cannot be changed, before minutes of measurements are lost."""
    from serve.config.edit import set_model

    folder = config.resolve().parent
    if not os.access(folder, os.W_OK) or (config.exists() and not os.access(config, os.W_OK)):
        raise ConfigError(f"{config} cannot be written; name a file in a folder that you may write to with --config")
    set_model(_text(config), model, {}, [])


def _write(config: Path, model: str, changes: dict[str, Any], remarks: list[str]) -> None:
    from convoy.files import write_file
    from serve.config.edit import set_model

    try:
        write_file(config, set_model(_text(config), model, changes, remarks, partial(_earlier_evidence, model)))
    except OSError as error:
        raise ConfigError(f"{config} cannot be written: {error.strerror}") from error


def _text(config: Path) -> str:
    """The text of the file, or one that serves the bundled models with their defaults."""
    import yaml

    from serve.config.schema import bundled_models

    if config.exists():
        return config.read_bytes().decode()  # unchanged: text mode would turn CRLF into LF
    models = [{"name": entry.name, "placement": entry.placement} for entry in bundled_models()]
    return yaml.safe_dump({"models": models}, sort_keys=False)


def _evidence(model: str, best: Measured, measured: list[Measured], slo: str) -> list[str]:
    """Comments for the file: the chosen measurement, and the fastest of every other engine and precision within the target."""
    from models.engines.backends.cpu import cpu_name

    remarks = [
        f"convoy tune {model} --slo-p99 {slo}, {datetime.date.today().isoformat()}, {cpu_name()}",
        f"chosen: {_summary(best)}",
    ]
    others = [result for result in measured if (result.engine, result.precision) != (best.engine, best.precision)]
    for engine, precision in sorted({(result.engine, result.precision) for result in others}):
        results = [result for result in others if (result.engine, result.precision) == (engine, precision)]
        fitting = [result for result in results if result.request_seconds <= _seconds(slo)]
        fastest = max(fitting, key=lambda result: result.images_per_second, default=None)
        remarks.append(_summary(fastest) if fastest else f"{engine} {precision}: too slow even for one image")
    return remarks


def _earlier_evidence(model: str, comments: Sequence[str]) -> list[int]:
    """Indices of the comments that earlier runs for this model wrote. Comments of the user may stand between them."""
    found, of_model = [], False
    for index, comment in enumerate(comments):
        title = TITLE.fullmatch(comment)
        if title:
            of_model = title["model"] == model
        if of_model and (title or EVIDENCE.fullmatch(comment)):
            found.append(index)
    return found


def _summary(result: Measured) -> str:
    return (
        f"{result.engine} {result.precision}, {result.threads} threads, batches of {result.batch}: "
        f"{result.images_per_second:,.0f} images/s, p99 of {result.runs} runs {result.p99_seconds * 1000:.2f} ms"
    )


def _print(measured: list[Measured], skipped: list[Skipped], best: Measured, console: Console) -> None:
    table = Table("engine", "precision", "threads", "batch", "images/s", "p99 of a run, ms", "", box=None)
    for result in measured:
        mark = "chosen" if result == best else ""
        times = (f"{result.images_per_second:,.0f}", f"{result.p99_seconds * 1000:.2f}")
        table.add_row(result.engine, result.precision, str(result.threads), str(result.batch), *times, mark)
    console.print(table)
    for entry in skipped:
        console.print(f"{entry.engine} {entry.precision} not measured: {entry.reason}")
