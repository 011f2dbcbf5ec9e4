"""Commands for experiments on a running server, and for its ledger."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.options import json_option, server_option, session
from convoy.errors import ConvoyError, InvalidInput, NotReady

FEEDBACK_ITEMS = 1000  # in one request
Cell = Callable[[dict[str, Any]], str]  # of an arm in a report
CLASSES = 5  # of a report on one screen: those on which the arms differ most


@click.group()
def experiment() -> None:
    """Start, watch and end experiments.

    \b
    convoy experiment start nets.yaml          a name that clients call, and its arms
    convoy experiment status                   what runs, with the arms' shares
    convoy experiment report nets              which arm to keep, and why
    convoy experiment ramp nets                the next step of a canary
    convoy experiment stop nets                the control answers from now on
    convoy experiment promote nets new         one arm answers from now on
    convoy experiment export nets out.parquet  every request with its outcome
    """


@experiment.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@server_option
def start(file: Path, url: str) -> None:
    """Start the experiment that a YAML file defines; one that runs with another definition gets a new revision."""
    import yaml

    try:
        definition = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file}: not valid YAML: {error}") from error
    document = call("POST", url, "/v1/experiments", definition)
    click.echo(f"{document['experiment']} runs, revision {document['revision']}")


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
    for one in documents:
        halted = dict.fromkeys(one["held"], " (held)") | dict.fromkeys(one["stopped"], " (stopped)")
        shares = ", ".join(f"{arm} {share:.1%}{halted.get(arm, '')}" for arm, share in one["shares"].items())
        table.add_row(one["name"], one["state"], one["mode"], str(one["revision"]), str(one["stage"]), shares)
    Console().print(table)


@experiment.command()
@click.argument("name")
@server_option
@json_option
def report(name: str, url: str, as_json: bool) -> None:
    """Show the arms side by side and say which one to keep."""
    document = call("GET", url, f"/v1/experiments/{name}/report")
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        print_report(document)


@experiment.command()
@click.argument("name")
@click.option("--percent", type=float, help="A step of the ramp.  [default: the next one]")
@server_option
def ramp(name: str, percent: float | None, url: str) -> None:
    """Give a canary its next share of the traffic."""
    call("POST", url, f"/v1/experiments/{name}/ramp", {"percent": percent})
    click.echo("done")


@experiment.command()
@click.argument("name")
@click.option("--arm", default="", help="Take out this arm only.")
@server_option
def stop(name: str, arm: str, url: str) -> None:
    """End an experiment: its control answers from now on."""
    call("POST", url, f"/v1/experiments/{name}/stop", {"arm": arm})
    click.echo("done")


@experiment.command()
@click.argument("name")
@click.argument("arm")
@server_option
def promote(name: str, arm: str, url: str) -> None:
    """Let one arm answer every request from now on."""
    call("POST", url, f"/v1/experiments/{name}/promote", {"arm": arm})
    click.echo("done")


@experiment.command()
@click.argument("name")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--config", "-c", type=click.Path(path_type=Path), help="The convoy.yaml that names the ledger.")
@click.option("--ledger", help="URL of the ledger, instead of a configuration.")
def export(name: str, out: Path, config: Path | None, ledger: str | None) -> None:
    """Write every request of an experiment with its outcome to a Parquet file."""
    from serve.config.loading import load_settings
    from serve.experiments.ledger.export import export_parquet

    source = ledger or load_settings(config).ledger_url
    if not source:
        raise InvalidInput("no ledger: name it with --ledger, or a configuration that declares one with --config")
    click.echo(f"{export_parquet(source, name, out):,} rows in {out}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@server_option
def feedback(files: tuple[Path, ...], url: str) -> None:
    """Send true labels or rewards from CSV or Parquet files.

    Columns: id, and label or reward; position and experiment where they are needed.

    \b
    convoy feedback labels.csv
    """
    accepted = 0
    for file in files:
        rows = read_parquet(file) if file.suffix == ".parquet" else read_csv(file)
        while True:
            try:
                chunk = list(islice(rows, FEEDBACK_ITEMS))
                if not chunk:
                    break
                accepted += call("POST", url, "/v1/feedback", {"feedback": chunk})["accepted"]
            except ConvoyError as error:
                raise type(error)(f"{file}: {error} ({accepted} items before were accepted)") from error
    click.echo(f"{accepted:,} items accepted")


def read_csv(file: Path) -> Iterator[dict[str, Any]]:
    """Feedback items. A label of digits is a class index."""
    with file.open(newline="") as lines:
        rows = csv.DictReader(lines)
        check_columns(file, rows.fieldnames or ())
        for row in rows:
            yield item({key: value for key, value in row.items() if value not in (None, "")})


def read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InvalidInput("Parquet needs an extra: pip install 'convoy-serve[parquet]'") from error
    table = parquet.ParquetFile(file)
    check_columns(file, table.schema_arrow.names)
    for batch in table.iter_batches():
        for row in batch.to_pylist():
            yield item({key: value for key, value in row.items() if value is not None})


def check_columns(file: Path, names: Iterable[str]) -> None:
    if "id" not in names or not {"label", "reward"} & set(names):
        raise InvalidInput(f"{file}: the columns must be id and label (or reward), not {', '.join(names)[:200]}")


def item(row: dict[str, Any]) -> dict[str, Any]:
    for key, kind in (("position", int), ("reward", float)):
        if key in row:
            try:
                row[key] = kind(row[key])
            except ValueError as error:
                raise InvalidInput(f"{key} of {row.get('id')!r} is {row[key]!r}, which is no number") from error
    if isinstance(row.get("label"), str) and row["label"].isdecimal():
        row["label"] = int(row["label"])
    return row


def call(method: str, url: str, path: str, document: Any = None) -> Any:
    """Asks a server. Raises NotReady when there is none, InvalidInput with its reason when it refuses."""
    import httpx

    try:
        with session(url, timeout=60) as client:
            answer = client.request(method, path, json=document)
    except httpx.TransportError as error:
        raise NotReady(f"no server at {url} ({error}); start one with: convoy up") from error
    if answer.is_error:
        try:
            reason = answer.json()["error"]
        except (ValueError, KeyError):
            reason = f"{url}{path} answered {answer.status_code}"
        raise InvalidInput(reason)
    return answer.json()


def print_report(document: dict[str, Any]) -> None:
    console = Console()
    console.print(f"[bold]{document['sentence']}[/bold]")
    head = f"{document['experiment']}: {document['mode']}, {document['state']}, revision {document['revision']}"
    console.print(f"{head}; intervals hold together at {1 - document['alpha']:.0%}, whenever they are read")
    arms = document["arms"]
    table = Table("", *(arm["name"] for arm in arms), box=None)
    for name, show in {**ARM_ROWS, document["metric"]: lambda arm: bounds(arm["metric"], 4), **COST_ROWS}.items():
        table.add_row(name, *map(show, arms))
    by_class: dict[int, dict[str, dict[str, Any]]] = {}
    for one in document["classes"]:
        by_class.setdefault(one["class_index"], {})[one["arm"]] = one
    for of_class in islice(by_class.values(), CLASSES):
        label = next(iter(of_class.values()))["label"]
        table.add_row(label, *(class_cell(of_class.get(arm["name"])) for arm in arms))
    console.print(table)
    if len(by_class) > CLASSES:
        console.print(f"and {len(by_class) - CLASSES} classes on which the arms differ less (--json)", style="dim")
    for one in document["comparisons"]:
        more = "" if one["needed"] is None else f", about {one['needed']:,} more samples to settle it"
        console.print(
            f"{one['arm']} less control: {bounds(one['difference'], 4)} from {one['samples']:,} samples{more}"
        )
    for line in [*(f"ALARM: {one}" for one in document["alarms"]), *document["notes"]]:
        console.print(line, style="dim")


def class_cell(one: dict[str, Any] | None) -> str:
    return "no labels" if one is None else f"{bounds(one['accuracy'], 3)} of {one['samples']:,}"


def bounds(one: dict[str, Any], digits: int) -> str:
    """`0.9120 [0.9010, 0.9220]`, a missing bound as ?."""
    value, low, high = ("?" if one[key] is None else f"{one[key]:.{digits}f}" for key in ("value", "low", "high"))
    return rf"{value} \[{low}, {high}]"


def plain(value: float | None) -> str:
    return "?" if value is None else f"{value:.4f}"


def energy_cell(arm: dict[str, Any]) -> str:
    return bounds(arm["energy"]["joules_per_image"], 4) if arm["energy"] else "no source"


def method_cell(arm: dict[str, Any]) -> str:
    """How the figure before came about."""
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
