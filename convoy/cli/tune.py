"""`convoy tune`: the fastest way to serve a model on this machine, measured and written into convoy.yaml."""

from __future__ import annotations

import datetime
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import json_option

if TYPE_CHECKING:
    from serve.config.schema import Settings
    from serve.planning.tuning import Measured, Skipped

DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")


@click.command()
@click.argument("model")
@click.option("--slo-p99", "slo", required=True, help="What 99 of 100 requests may wait for the engine: 20ms, 0.5s.")
@click.option(
    "--config", "-c", type=click.Path(dir_okay=False, path_type=Path), default="convoy.yaml", show_default=True,
    help="Where the best is written; made if it is not there.",
)  # fmt: skip
@click.option("--seconds", default=1.0, show_default=True, help="How long each batch size runs.")
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@json_option
def tune(model: str, slo: str, config: Path, seconds: float, dry_run: bool, as_json: bool) -> None:
    """Try the engines, precisions, threads and batch sizes that MODEL may run with; write the fastest one.

    A request waits for the run that it finds and for its own, so a batch may take half of the target. Only engines that the gate
    accepts are tried, and built where they are not there yet.

    \b
    convoy tune resnet20-cifar10 --slo-p99 20ms
    """
    from convoy.client.progress import steps_bar
    from models.engines.store.store import open_store
    from serve.config.thread_plan import available_cores
    from serve.planning.tuning import choose, explore

    slo_seconds = _seconds(slo)
    settings = _settings(config, model)
    found = next(one for one in settings.models if one.name == model)
    cores = settings.cores or available_cores()
    with steps_bar(sys.stderr.isatty()) as report:
        measured, skipped = explore(found, open_store(settings.engines), cores, slo_seconds, seconds, report)
    best = choose(measured, slo_seconds)
    changes = {
        "engine": best.engine,
        "precision": best.precision,
        "threads": best.threads,
        "max_batch": best.batch,
        "target_ms": round(slo_seconds * 500, 3),
    }
    if as_json:
        document = {"chosen": changes, "measured": [asdict(one) for one in measured]}
        click.echo(json.dumps(document | {"skipped": [asdict(one) for one in skipped]}, indent=2))
    else:
        _print(measured, skipped, best, Console())
    if not dry_run:
        _write(config, model, changes, _evidence(best, measured, slo))
        click.echo(f"{config}: {model} runs in {best.engine} {best.precision}", err=as_json)


def _seconds(text: str) -> float:
    match = DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise click.UsageError(f"--slo-p99 {text!r} is no time such as 20ms or 0.5s")
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


def _settings(config: Path, model: str) -> Settings:
    """Those of the file, or the defaults. Raises NotFound for a model that they do not name."""
    from convoy.errors import unknown
    from serve.config.loading import load_settings

    settings = load_settings(config if config.exists() else None)
    names = [one.name for one in settings.models]
    if model not in names:
        raise unknown("model", model, names)
    return settings


def _write(config: Path, model: str, changes: dict[str, Any], remarks: list[str]) -> None:
    """Changes the file, or makes one that serves the bundled models as before."""
    import yaml

    from convoy.files import write_file
    from serve.config.edit import set_model
    from serve.config.schema import bundled_models

    if config.exists():
        text = config.read_bytes().decode()  # as it is: text mode would turn CRLF into LF
    else:
        models = [{"name": one.name, "placement": one.placement} for one in bundled_models()]
        text = yaml.safe_dump({"models": models}, sort_keys=False)
    write_file(config, set_model(text, model, changes, remarks))


def _evidence(best: Measured, measured: list[Measured], slo: str) -> list[str]:
    """The chosen way and the best of every other engine that keeps to the target, for whoever reads the file."""
    from models.engines.backends.cpu import cpu_name

    told = [f"convoy tune --slo-p99 {slo}, {datetime.date.today().isoformat()}, {cpu_name()}", f"chosen: {_told(best)}"]
    others = [one for one in measured if (one.engine, one.precision) != (best.engine, best.precision)]
    for engine, precision in sorted({(one.engine, one.precision) for one in others}):
        ways = [one for one in others if (one.engine, one.precision) == (engine, precision)]
        fitting = [one for one in ways if one.request_seconds <= _seconds(slo)]
        fastest = max(fitting, key=lambda one: one.images_per_second, default=None)
        told.append(_told(fastest) if fastest else f"{engine} {precision}: too slow for one image")
    return told


def _told(way: Measured) -> str:
    return (
        f"{way.engine} {way.precision}, {way.threads} threads, batches of {way.batch}: "
        f"{way.images_per_second:,.0f} images/s, p99 of {way.runs} runs {way.p99_seconds * 1000:.2f} ms"
    )


def _print(measured: list[Measured], skipped: list[Skipped], best: Measured, console: Console) -> None:
    table = Table("engine", "precision", "threads", "batch", "images/s", "p99 of a run, ms", "", box=None)
    for one in measured:
        mark = "chosen" if one == best else ""
        times = (f"{one.images_per_second:,.0f}", f"{one.p99_seconds * 1000:.2f}")
        table.add_row(one.engine, one.precision, str(one.threads), str(one.batch), *times, mark)
    console.print(table)
    for gone in skipped:
        console.print(f"{gone.engine} {gone.precision} not tried: {gone.reason}")
