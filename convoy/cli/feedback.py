"""`convoy feedback`: sends true labels and rewards from files to a running server."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from convoy.cli.options import server_option
from convoy.cli.server import call
from convoy.errors import ConvoyError, InvalidInput

FEEDBACK_ITEMS = 1000  # in one request


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@server_option
def feedback(files: tuple[Path, ...], url: str) -> None:
    """Send true labels or rewards from CSV or Parquet files to the server.

    Columns: id (of the request), and label (class name or index) or reward; optionally position (of the image in its request)
    and experiment.

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
                raise type(error)(f"{file}: {error} ({accepted} items before it were accepted)") from error
    click.echo(f"{accepted:,} items accepted")


def read_csv(file: Path) -> Iterator[dict[str, Any]]:
    """Feedback items of a CSV file. A label of digits is a class index."""
    with file.open(newline="") as text:
        rows = csv.DictReader(text)
        check_columns(file, rows.fieldnames or ())
        for row in rows:
            yield item({key: value for key, value in row.items() if value not in (None, "")})


def read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    """Feedback items of a Parquet file. Raises InvalidInput without the extra `parquet`."""
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
    """Raises InvalidInput when a required column is missing."""
    if "id" not in names or not {"label", "reward"} & set(names):
        raise InvalidInput(f"{file}: the columns must be id and label (or reward), not {', '.join(names)[:200]}")


def item(row: dict[str, Any]) -> dict[str, Any]:
    """A feedback item of a row, with numbers parsed. Raises InvalidInput."""
    for key, kind in (("position", int), ("reward", float)):
        if key in row:
            try:
                row[key] = kind(row[key])
            except ValueError as error:
                raise InvalidInput(f"{key} of {row.get('id')!r} is {row[key]!r}; it must be a number") from error
    if isinstance(row.get("label"), str) and row["label"].isdecimal():
        row["label"] = int(row["label"])
    return row
