"""The ledger and its writer on both databases: revisions, tallies, concurrent writers, lost connections."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from convoy.errors import ConfigError
from serve.config.experiments import Arm, Experiment
from serve.experiments.ledger.records import (
    Answered,
    CounterKey,
    Decision,
    Moments,
    Outcome,
    Place,
    Prediction,
    Unanswered,
)
from serve.experiments.ledger.schema import decisions, metadata, outcomes, predictions, tallies
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter
from serve.experiments.revision import first_revision

EXPERIMENT = Experiment(name="nets", arms=(Arm(name="old", model="a"), Arm(name="new", model="b")))
PLACE = Place("nets", 1, 0, "old")
KEY = CounterKey(*PLACE, "latency", 7, 0)


def prediction(number: int) -> Prediction:
    return Prediction("nets", f"id-{number}", 0, "old", 1, 0, 0, 1, 3, 0.9, 1000.0 + number)


def answered(number: int, images: int = 1) -> Answered:
    return Answered(PLACE, f"id-{number}", 0, True, [(3, 0.9)] * images, 0.004, 0.002, None, 1000.0 + number)


def decision(number: int) -> Decision:
    return Decision(f"{number:032x}", "nets", 1, 1000.0, "ramp", "new", "user", "asked", "{}")


def count(ledger: Ledger, table: object) -> int:
    with ledger.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


def tally(ledger: Ledger, measure: str, bucket: int | None = None) -> tuple[Any, ...]:
    """Count, sum and sum of squares of a measure, over all writers."""
    columns = tallies.c
    where = [columns.measure == measure, *([] if bucket is None else [columns.bucket == bucket])]
    sums = (func.sum(columns.count), func.sum(columns.total), func.sum(columns.squares))
    with ledger.engine.connect() as connection:
        return tuple(connection.execute(select(*sums).where(*where)).one())


def test_migrations_create_the_tables_of_the_schema(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_a_ledger_again_changes_nothing(ledger: Ledger, ledger_url: str) -> None:
    ledger.declare(EXPERIMENT)
    reopened = Ledger(ledger_url)
    assert reopened.current() == ledger.current()
    reopened.close()


def test_processes_that_open_a_new_ledger_at_the_same_time_agree(ledger_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        ledgers = list(threads.map(Ledger, [ledger_url] * 4))
    assert {ledger.declare(EXPERIMENT) for ledger in ledgers} == {first_revision(EXPERIMENT)}
    for ledger in ledgers:
        ledger.close()


def test_the_lock_of_a_file_uri_is_beside_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Ledger(f"sqlite:///file:{tmp_path}/node/ledger.db?uri=true").close()
    assert [file.name for file in tmp_path.iterdir()] == ["node"]
    assert (tmp_path / "node" / "ledger.db.lock").exists()


def test_writing_the_same_rows_twice_counts_once(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.write(
            [prediction(1), prediction(2)],
            [Outcome("id-1", 0, 3, None, 1.0)],
            {KEY: Moments(5, 5, 10.0, 5.0, 10.0, 20.0)},
            "writer",
        )
    assert (count(ledger, predictions), count(ledger, outcomes)) == (2, 1)
    with ledger.engine.connect() as connection:
        assert connection.execute(select(func.sum(tallies.c.count))).scalar_one() == 5


def test_a_corrected_label_counts_once(ledger: Ledger) -> None:
    wrong, right = Outcome("id-1", 0, 3, None, 1.0), Outcome("id-1", 0, 4, None, 2.0)
    ledger.write([], [wrong, right], {}, "writer")
    with ledger.engine.connect() as connection:
        assert connection.execute(select(outcomes.c.class_index)).scalars().all() == [4]


def test_only_a_changed_declaration_makes_a_revision(ledger: Ledger) -> None:
    first = ledger.declare(EXPERIMENT)
    assert ledger.declare(EXPERIMENT) == first
    changed = EXPERIMENT.model_copy(update={"effect": 0.05})
    second = ledger.declare(changed)
    assert (second.revision, second.serial) == (2, 2)
    assert ledger.declare(changed) == second


def test_a_decision_survives_a_redeployment_of_the_same_declaration(ledger: Ledger) -> None:
    promoted = ledger.declare(EXPERIMENT).ended("new", "promoted")
    assert ledger.change(promoted, decision(1))
    assert ledger.declare(EXPERIMENT) == promoted
    assert count(ledger, decisions) == 1


def test_only_one_of_two_concurrent_changes_is_written(ledger: Ledger) -> None:
    first = ledger.declare(EXPERIMENT)
    results = [
        ledger.change(first.ended(arm, "promoted"), decision(number)) for number, arm in enumerate(("old", "new"))
    ]
    assert results == [True, False]
    assert ledger.current()["nets"].allocation.shares == {"old": 1.0}
    assert count(ledger, decisions) == 1


def test_a_closed_writer_has_written_every_event(ledger: Ledger) -> None:
    writer = LedgerWriter(ledger, flush_seconds=3600, capacity=10_000)
    for number in range(5000):
        writer.answered(answered(number))
    writer.close()
    assert count(ledger, predictions) == 5000
    assert tally(ledger, "engine") == (5000, pytest.approx(10.0), pytest.approx(0.02))
    assert tally(ledger, "latency")[0] == tally(ledger, "failed")[0] == 5000


def test_costs_are_counted_per_image(ledger: Ledger) -> None:
    writer = LedgerWriter(ledger, 3600, 100)
    writer.answered(answered(1, images=4))
    writer.answered(answered(2)._replace(engine_seconds=None))  # answered from the cache: its cost is unknown
    writer.unanswered(Unanswered(PLACE, 0, "failed"))
    writer.unanswered(Unanswered(PLACE, 0, "dropped"))
    writer.close()
    assert count(ledger, predictions) == 5
    assert tally(ledger, "engine") == (4, pytest.approx(0.002), pytest.approx(0.002**2))
    assert tally(ledger, "joules")[0] is None
    assert tally(ledger, "failed", 0)[0] == 2
    assert (tally(ledger, "failed", 1)[0], tally(ledger, "dropped", 0)[0]) == (1, 1)


def test_a_full_writer_counts_the_events_that_it_drops(ledger: Ledger) -> None:
    written: list[tuple[int, int]] = []
    writer = LedgerWriter(ledger, 3600, 10, on_write=lambda count, dropped: written.append((count, dropped)))
    for number in range(25):
        writer.answered(answered(number))
    assert writer.room == 0
    writer.close()
    assert written == [(10, 15)]
    assert writer.room == 10
    assert tally(ledger, "failed")[0] == 10, "dropped events are in no tally"


def test_all_images_of_an_answer_are_kept_or_none(ledger: Ledger) -> None:
    writer = LedgerWriter(ledger, 3600, 10)
    for number in range(3):
        writer.answered(answered(number, images=4))
    writer.close()
    assert count(ledger, predictions) == 8


def test_events_are_written_when_a_locked_database_is_free_again(ledger: Ledger, ledger_url: str) -> None:
    """While another connection holds the table, the writer's transaction fails or waits, and is then repeated as a whole."""
    writer = LedgerWriter(ledger, 0.02, 10_000)
    with ledger.engine.begin() as connection:
        # SQLite allows no other writer until this transaction ends.
        connection.execute(predictions.insert(), [prediction(0)._asdict()])
        for number in range(100):
            writer.answered(answered(number))
    writer.close()
    assert count(ledger, predictions) == 100
    assert tally(ledger, "failed")[0] == 100


def test_requests_of_a_killed_writer_count_once_when_they_are_sent_again(ledger: Ledger, ledger_url: str) -> None:
    """The first process is killed while it writes; the second one sends the same requests again."""
    code = f"""
import os, threading
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter
from tests.serve.experiments.ledger.test_store import answered
writer = LedgerWriter(Ledger({ledger_url!r}), 0.001, 100_000)
for number in range(20_000):
    writer.answered(answered(number))
    if number == 5000:
        print("begun", flush=True)
writer.close()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()
    assert count(ledger, predictions) <= 20_000
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert count(ledger, predictions) == 20_000


def test_the_counts_of_two_writers_add_up(ledger: Ledger) -> None:
    writers = [LedgerWriter(ledger, 0.005, 10_000) for _ in range(2)]

    def work(writer: LedgerWriter, offset: int) -> None:
        for number in range(2000):
            writer.answered(answered(offset + number))

    threads = [threading.Thread(target=work, args=(writer, 5000 * n)) for n, writer in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert count(ledger, predictions) == 4000
    assert tally(ledger, "failed")[0] == 4000


def test_only_requests_of_ended_revisions_are_deleted(ledger: Ledger) -> None:
    def remaining() -> set[str]:
        with ledger.engine.connect() as connection:
            return set(connection.execute(select(predictions.c.request_id)).scalars())

    first = ledger.declare(EXPERIMENT)
    second = first.redefined(EXPERIMENT.model_copy(update={"effect": 0.05}))
    assert ledger.change(second, decision(1))
    rows = [prediction(number) for number in range(10)]
    rows += [prediction(number)._replace(revision=2) for number in range(10, 15)]
    ledger.write(rows, [Outcome(row.request_id, 0, 3, None, row.at) for row in rows], {KEY: Moments(15, 15)}, "writer")

    assert ledger.forget(before=1004.0) == 4
    assert remaining() == {f"id-{number}" for number in range(4, 15)}
    assert count(ledger, outcomes) == 11
    assert ledger.forget(before=2000.0) == 6
    assert remaining() == {f"id-{number}" for number in range(10, 15)}, "requests of the running revision are kept"
    assert ledger.change(second.ended("old", "stopped"), decision(2))
    assert ledger.forget(before=2000.0) == 5
    assert (count(ledger, outcomes), count(ledger, tallies), count(ledger, decisions)) == (0, 1, 2)


@pytest.mark.parametrize("url", ["mysql://somewhere/x", "nonsense", "oracle:///x"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///PATH"):
        Ledger(url)


def test_the_error_does_not_hold_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        Ledger("postgresql+psycopg://me:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(caught.value)


def test_the_error_names_a_ledger_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(ConfigError, match=r"ledger\.db"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db")


def test_stages_of_a_ramp_are_read_back_unchanged(ledger: Ledger) -> None:
    canary = EXPERIMENT.model_copy(update={"mode": "canary"})
    stage = ledger.declare(canary)
    for step in range(1, 5):
        following = stage.ramped(step)
        assert ledger.change(following, decision(step))
        assert ledger.current()["nets"] == following
        stage = following
    assert stage.allocation.shares == {"new": 1.0}
