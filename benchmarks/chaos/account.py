"""Compares an experiment's answers with its ledger: the counters of the gateways with the rows of the database."""

from __future__ import annotations

from sqlalchemy import create_engine, func, select

from benchmarks.chaos.stage import Stage
from benchmarks.chaos.waiting import until
from serve.experiments.ledger.schema import predictions
from serve.telemetry.definitions import ARM_REQUESTS
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files

RECORDED_SECONDS = 30.0  # time limit for writing the last answer


def missing(stage: Stage) -> int:
    """Number of answers (of one image each) without a row in the ledger."""
    assert stage.database is not None
    series = total(read_files(stage.settings.node_dir / "metrics"))[ARM_REQUESTS.name]
    answered = sum(int(values[0]) for labels, values in series.items() if ("outcome", "answered") in labels)
    engine = create_engine(stage.database.url)
    with engine.connect() as connection:
        rows = int(connection.execute(select(func.count()).select_from(predictions)).scalar_one())
    engine.dispose()
    return answered - rows


def note(stage: Stage) -> None:
    """Stores the number of rows that are already missing because of earlier faults."""
    stage.missing = missing(stage)


def check(stage: Stage) -> None:
    """Raises TimeoutError if an answer since `note` is not recorded in time."""
    until(lambda: missing(stage) == stage.missing, RECORDED_SECONDS)
