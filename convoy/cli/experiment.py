"""`convoy experiment`: experiments on a running server, and the export of its ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import json_option, server_option
from convoy.cli.server import call
from convoy.errors import ConfigError, InvalidInput

Cell = Callable[[dict[str, Any]], str]  # formats a value of an arm in a report
CLASSES = 5  # number of classes in a printed report, those on which the arms differ most


@click.group()
def experiment() -> None:
    """Start, watch and end experiments, which compare models on live traffic.

    \b
    convoy experiment start nets.yaml          start the experiment of a file
    convoy experiment status                   list experiments and the shares of their arms
    convoy experiment report nets              compare the arms
    convoy experiment ramp nets                advance a canary to its next stage
    convoy experiment stop nets                end it: the control answers all requests
    convoy experiment promote nets new         end it: one arm answers all requests
    convoy experiment export nets out.parquet  write all requests with their outcomes
    """


@experiment.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@server_option
def start(file: Path, url: str) -> None:
    """Start the experiment that a YAML file defines. If it runs with another definition, it gets a new revision."""
    from convoy.yaml_text import parse_yaml

    try:
        definition = parse_yaml(file.read_text(encoding="utf-8"))
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file}: not valid YAML: {error}") from error
    try:
        json.dumps(definition, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # a date, a set, NaN or a document that holds itself
        raise InvalidInput(f"{file}: it is sent as JSON, which has no form for one of its values: {error}") from error
    document = call("POST", url, "/v1/experiments", definition)
    click.echo(f"{document['experiment']} is running, revision {document['revision']}")


@experiment.command()
@server_option
@json_option
def status(url: str, as_json: bool) -> None:
    """List experiments with the shares of their arms."""
    documents = call("GET", url, "/v1/experiments")["experiments"]
    if as_json:
        click.echo(json.dumps(documents, indent=2))
        return
    table = Table("experiment", "state", "mode", "revision", "stage", "shares", box=None)
    for entry in documents:
        halted = dict.fromkeys(entry["held"], " (held)") | dict.fromkeys(entry["stopped"], " (stopped)")
        shares = ", ".join(f"{arm} {share:.1%}{halted.get(arm, '')}" for arm, share in entry["shares"].items())
        table.add_row(entry["name"], entry["state"], entry["mode"], str(entry["revision"]), str(entry["stage"]), shares)
    Console().print(table)


@experiment.command()
@click.argument("name")
@server_option
@json_option
def report(name: str, url: str, as_json: bool) -> None:
    """Compare the arms of an experiment side by side, with the conclusion so far."""
    document = call("GET", url, f"/v1/experiments/{name}/report")
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        print_report(document)


@experiment.command()
@click.argument("name")
@click.option("--percent", type=float, help="Percentage of the ramp to go to.  [default: the next one]")
@server_option
def ramp(name: str, percent: float | None, url: str) -> None:
    """Advance a canary to the next percentage of its ramp."""
    call("POST", url, f"/v1/experiments/{name}/ramp", {"percent": percent})
    click.echo("done")


@experiment.command()
@click.argument("name")
@click.option("--arm", default="", help="Stop only this arm.")
@server_option
def stop(name: str, arm: str, url: str) -> None:
    """End an experiment: the control answers all requests from now on."""
    call("POST", url, f"/v1/experiments/{name}/stop", {"arm": arm})
    click.echo("done")


@experiment.command()
@click.argument("name")
@click.argument("arm")
@server_option
def promote(name: str, arm: str, url: str) -> None:
    """End an experiment: one arm answers all requests from now on."""
    call("POST", url, f"/v1/experiments/{name}/promote", {"arm": arm})
    click.echo("done")


@experiment.command()
@click.argument("name")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--config", "-c", type=click.Path(path_type=Path), help="The convoy.yaml that configures the ledger.")
@click.option("--ledger", help="URL of the ledger, instead of --config.")
def export(name: str, out: Path, config: Path | None, ledger: str | None) -> None:
    """Write every request of an experiment with its outcome to a Parquet file."""
    from serve.config.loading import load_settings
    from serve.experiments.ledger.export import export_parquet

    source = ledger or load_settings(config).ledger_url
    if not source:
        raise InvalidInput("no ledger; give its URL with --ledger, or a configuration that has one with --config")
    click.echo(f"{export_parquet(source, name, out):,} rows in {out}")


def print_report(document: dict[str, Any]) -> None:
    """Prints a report that fits on a screen of 80 columns."""
    console = Console()
    console.print(f"[bold]{document['sentence']}[/bold]")
    head = f"{document['experiment']}: {document['mode']}, {document['state']}, revision {document['revision']}"
    console.print(f"{head}; simultaneous {1 - document['alpha']:.0%} confidence intervals, valid at any time")
    arms = document["arms"]
    table = Table("", *(arm["name"] for arm in arms), box=None)
    for name, show in {**ARM_ROWS, document["metric"]: lambda arm: bounds(arm["metric"], 4), **COST_ROWS}.items():
        table.add_row(name, *map(show, arms))
    by_class: dict[int, dict[str, dict[str, Any]]] = {}
    for figures in document["classes"]:
        by_class.setdefault(figures["class_index"], {})[figures["arm"]] = figures
    for of_class in islice(by_class.values(), CLASSES):
        label = next(iter(of_class.values()))["label"]
        table.add_row(label, *(class_cell(of_class.get(arm["name"])) for arm in arms))
    console.print(table)
    if len(by_class) > CLASSES:
        console.print(f"and {len(by_class) - CLASSES} classes on which the arms differ less (--json)", style="dim")
    for comparison in document["comparisons"]:
        more = "" if comparison["needed"] is None else f", about {comparison['needed']:,} more samples to decide"
        difference = bounds(comparison["difference"], 4)
        console.print(f"{comparison['arm']} less control: {difference} from {comparison['samples']:,} samples{more}")
    for line in [*(f"ALARM: {alarm}" for alarm in document["alarms"]), *document["notes"]]:
        console.print(line, style="dim")


def class_cell(figures: dict[str, Any] | None) -> str:
    """An arm's accuracy on one class with its interval and number of samples."""
    return "no labels" if figures is None else f"{bounds(figures['accuracy'], 3)} of {figures['samples']:,}"


def bounds(estimate: dict[str, Any], digits: int) -> str:
    """Formats `0.9120 [0.9010, 0.9220]`, with ? for a missing value."""
    value, low, high = (
        "?" if estimate[key] is None else f"{estimate[key]:.{digits}f}" for key in ("value", "low", "high")
    )
    return rf"{value} \[{low}, {high}]"


def plain(value: float | None) -> str:
    """Formats a number with four decimals; ? for a missing one."""
    return "?" if value is None else f"{value:.4f}"


def energy_cell(arm: dict[str, Any]) -> str:
    """Joules per image of an arm, with the interval."""
    return bounds(arm["energy"]["joules_per_image"], 4) if arm["energy"] else "no source"


def method_cell(arm: dict[str, Any]) -> str:
    """Source and method of the energy figure in the row above."""
    return f"{arm['energy']['source']}, {arm['energy']['method']}" if arm["energy"] else ""


ARM_ROWS: dict[str, Cell] = {
    "model": lambda arm: str(arm["model"]),
    "share": lambda arm: f"{arm['share']:.1%}",
    "answers": lambda arm: f"{arm['answers']:,}",
    "samples": lambda arm: f"{arm['samples']:,} of {arm['units']:,} units",
}
COST_ROWS: dict[str, Cell] = {
    "errors": lambda arm: bounds(arm["error_rate"], 4),
    "p99 ms": lambda arm: bounds(arm["p99_ms"], 1),
    "engine ms": lambda arm: bounds(arm["engine_ms"], 2),
    "J/image": energy_cell,
    "": method_cell,
    "Brier score": lambda arm: plain(arm["brier"]),
    "calibration error": lambda arm: plain(arm["calibration_error"]),
}
