"""Migration of a ledger of an earlier version: its data stays readable, and no interval becomes too narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text

from serve.config.experiments import Experiment
from serve.experiments.analysis import Analysis
from serve.experiments.controller import ExperimentController
from serve.experiments.ledger.records import Answered, Place
from serve.experiments.ledger.store import MIGRATIONS, Ledger
from serve.experiments.ledger.writer import LedgerWriter
from serve.experiments.report import ArmReport

Write = Callable[..., None]
REVISION = (
    "INSERT INTO revisions (experiment, serial, revision, stage, step, state, definition, declared, spans, at)"
    " VALUES (:experiment, :serial, 1, 0, 0, :state, :definition, :definition, :spans, 1.0)"
)
TALLY = (
    "INSERT INTO tallies (experiment, revision, stage, arm, measure, bucket, writer, count, total, squares)"
    " VALUES (:experiment, 1, 0, 'new', :measure, :bucket, 'w', :count, :total, :squares)"
)


@pytest.fixture
def old(ledger_url: str) -> Iterator[Connection]:
    """A ledger with the tables of the first version."""
    engine = create_engine(ledger_url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        yield connection
    engine.dispose()


def define(name: str, **changes: Any) -> Experiment:
    arms = [{"name": name, "model": name} for name in ("old", "new", "third")]
    return Experiment.model_validate({"name": name, "arms": arms} | changes)


def write(connection: Connection, definition: Experiment, state: str, shares: list[str], serial: int = 1) -> None:
    spans = [(1_000_000 * (index + 1) // len(shares), arm) for index, arm in enumerate(shares)]
    row = {"experiment": definition.name, "serial": serial, "state": state, "spans": orjson.dumps(spans).decode()}
    connection.execute(text(REVISION), row | {"definition": definition.model_dump_json()})


def write_tallies(connection: Connection, name: str) -> None:
    """400 answers of 16 images, and 100 failures."""
    for measure, bucket, count, total, squares in (
        ("failed", 0, 400, 0.0, 0.0),
        ("failed", 1, 100, 0.0, 0.0),
        ("latency", 600, 200, 0.0, 0.0),
        ("latency", 610, 200, 0.0, 0.0),
        ("engine", 0, 6400, 64.0, 0.65),
    ):
        row = {"experiment": name, "measure": measure, "bucket": bucket}
        connection.execute(text(TALLY), row | {"count": count, "total": total, "squares": squares})


def report_of(ledger: Ledger, name: str) -> ArmReport:
    return ExperimentController(ledger, lambda: "declared").report(name).arms[1]


def test_old_tallies_by_request_keep_their_intervals_and_those_by_key_have_none(
    old: Connection, ledger_url: str
) -> None:
    arms = ["old", "new", "third"]
    write(old, define("by-request"), "running", arms)
    write(old, define("by-key", sticky="header:x-user"), "running", arms)
    write_tallies(old, "by-request")
    write_tallies(old, "by-key")
    old.commit()
    ledger = Ledger(ledger_url)
    by_request, by_key = (report_of(ledger, name) for name in ("by-request", "by-key"))
    for arm in (by_request, by_key):
        assert (arm.answers, arm.failures) == (400, 100)
        assert arm.error_rate.value == 0.2
        assert arm.engine_ms.value == pytest.approx(10.0)
        assert (arm.engine_ms.low, arm.engine_ms.high) == (0.0, np.inf)
    assert 0.1 < by_request.error_rate.low < 0.2 < by_request.error_rate.high < 0.3
    assert 0 < by_request.p50_ms.low < by_request.p50_ms.high < 10
    assert by_key.error_rate.low < 0.01
    assert by_key.error_rate.high > 0.9
    assert (by_key.p50_ms.low, by_key.p50_ms.high) == (0.0, np.inf)
    count_more(ledger, "by-request")
    ledger.close()


def count_more(ledger: Ledger, name: str) -> None:
    """New requests are added to the old ones; when they outweigh them, the cost has an interval again."""
    writer, place = LedgerWriter(ledger, 3600, 1_000_000), Place(name, 1, 0, "new")
    for number in range(4000):
        cost = 0.16 + 0.01 * (number % 2)
        writer.answered(Answered(place, f"r{number}", 0, True, [(1, 0.9)] * 16, 0.005, cost, None, 1.0))
    writer.close()
    revision = ledger.current()[name]
    arm = Analysis.of(ledger, revision, lambda: "").arms()[1]
    assert arm.answers == 4400
    assert 5 < arm.engine_ms.low < arm.engine_ms.high < 15


def test_stopped_arms_of_an_old_ledger_stay_stopped(old: Connection, ledger_url: str) -> None:
    bandit = {"mode": "bandit"}
    weighted = [{"name": name, "model": name, "weight": share} for name, share in (("old", 1.0), ("new", 0.0))]
    write(old, define("ended"), "stopped", ["old"])
    write(old, define("taken", **bandit), "running", ["old", "third", "new"])
    write(old, define("taken", **bandit), "running", ["old", "third"], serial=2)
    write(old, define("promoted"), "promoted", ["new"])
    write(old, define("without", arms=weighted), "running", ["old"])
    write(old, define("shadowed", mode="shadow"), "running", ["old"])
    old.commit()
    ledger = Ledger(ledger_url)
    stopped = {name: set(revision.stopped) for name, revision in ledger.current().items()}
    ledger.close()
    assert stopped == {
        "ended": {"new", "third"},
        "taken": {"new"},
        "promoted": set(),
        "without": set(),
        "shadowed": set(),
    }
