"""Exports the requests of an experiment with their outcomes to a Parquet file."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import and_, select

from convoy.errors import InvalidInput
from convoy.files import staged_file
from serve.experiments.ledger.schema import outcomes, predictions
from serve.experiments.ledger.store import Ledger

SQLITE = b"SQLite format 3"  # magic bytes of its files
ROWS = 50_000  # in memory at the same time


def export_parquet(url: str, experiment: str, out: Path) -> int:
    """Writes the file atomically. Returns the number of rows.

    Raises ConfigError, or InvalidInput when the extra is not installed or a database would be overwritten.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InvalidInput("Parquet needs an extra: pip install 'convoy-serve[parquet]'") from error
    if _is_database(out):
        raise InvalidInput(f"{out} is a database, perhaps the ledger itself; name another file")
    schema = arrow.schema(
        [
            ("request_id", arrow.string()),
            ("position", arrow.int32()),
            ("arm", arrow.string()),
            ("revision", arrow.int32()),
            ("stage", arrow.int32()),
            ("unit", arrow.int64()),
            ("answered", arrow.bool_()),
            ("class_index", arrow.int32()),
            ("confidence", arrow.float64()),
            ("at", arrow.float64()),
            ("label", arrow.int32()),
            ("reward", arrow.float64()),
            ("labelled_at", arrow.float64()),
        ]
    )
    same = and_(outcomes.c.request_id == predictions.c.request_id, outcomes.c.position == predictions.c.position)
    columns = [predictions.c[name] for name in schema.names[:10]]
    truth = (outcomes.c.class_index.label("label"), outcomes.c.reward, outcomes.c.at.label("labelled_at"))
    query = select(*columns, *truth).select_from(predictions.outerjoin(outcomes, same))
    query = query.where(predictions.c.experiment == experiment).order_by(predictions.c.at)
    ledger, written = Ledger(url), 0
    with (
        staged_file(out) as staged,
        parquet.ParquetWriter(staged, schema) as file,
        ledger.engine.connect() as connection,
    ):
        rows = connection.execution_options(yield_per=ROWS).execute(query).mappings()
        for part in rows.partitions():
            documents = [dict(row) | {"answered": bool(row["answered"])} for row in part]
            file.write_table(arrow.Table.from_pylist(documents, schema))
            written += len(documents)
    ledger.close()
    return written


def _is_database(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as present:
        return present.read(len(SQLITE)) == SQLITE
