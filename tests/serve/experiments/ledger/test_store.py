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


def test_migrations_lead_to_the_tables_of_the_schema(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_again_changes_nothing(ledger: Ledger, ledger_url: str) -> None:
    ledger.declare(EXPERIMENT)
    again = Ledger(ledger_url)
    assert again.current() == ledger.current()
    again.close()


def test_those_that_open_a_new_ledger_together_agree(ledger_url: str) -> None:
    with ThreadPoolExecutor(4) as racers:
        ledgers = list(racers.map(Ledger, [ledger_url] * 4))
    assert {one.declare(EXPERIMENT) for one in ledgers} == {first_revision(EXPERIMENT)}
    for one in ledgers:
        one.close()


def test_a_file_named_by_a_uri_has_its_lock_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Ledger(f"sqlite:///file:{tmp_path}/node/ledger.db?uri=true").close()
    assert [file.name for file in tmp_path.iterdir()] == ["node"]
    assert (tmp_path / "node" / "ledger.db.lock").exists()


def test_writing_twice_is_writing_once(ledger: Ledger) -> None:
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


def test_a_label_that_is_corrected_counts_once(ledger: Ledger) -> None:
    wrong, right = Outcome("id-1", 0, 3, None, 1.0), Outcome("id-1", 0, 4, None, 2.0)
    ledger.write([], [wrong, right], {}, "writer")
    with ledger.engine.connect() as connection:
        assert connection.execute(select(outcomes.c.class_index)).scalars().all() == [4]


def test_a_declaration_is_a_revision_only_when_it_changed(ledger: Ledger) -> None:
    first = ledger.declare(EXPERIMENT)
    assert ledger.declare(EXPERIMENT) == first
    changed = EXPERIMENT.model_copy(update={"effect": 0.05})
    second = ledger.declare(changed)
    assert (second.revision, second.serial) == (2, 2)
    assert ledger.declare(changed) == second


def test_what_was_decided_survives_a_redeploy_of_the_same_declaration(ledger: Ledger) -> None:
    promoted = ledger.declare(EXPERIMENT).ended("new", "promoted")
    assert ledger.change(promoted, decision(1))
    assert ledger.declare(EXPERIMENT) == promoted
    assert count(ledger, decisions) == 1


def test_of_two_changes_at_once_one_wins_whole(ledger: Ledger) -> None:
    first = ledger.declare(EXPERIMENT)
    results = [
        ledger.change(first.ended(arm, "promoted"), decision(number)) for number, arm in enumerate(("old", "new"))
    ]
    assert results == [True, False]
    assert ledger.current()["nets"].allocation.shares == {"old": 1.0}
    assert count(ledger, decisions) == 1


def test_a_writer_loses_nothing_on_a_clean_stop(ledger: Ledger) -> None:
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
    writer.answered(answered(2)._replace(engine_seconds=None))  # from the cache: it cost nothing that could be told
    writer.unanswered(Unanswered(PLACE, 0, "failed"))
    writer.unanswered(Unanswered(PLACE, 0, "dropped"))
    writer.close()
    assert count(ledger, predictions) == 5
    assert tally(ledger, "engine") == (4, pytest.approx(0.002), pytest.approx(0.002**2))
    assert tally(ledger, "joules")[0] is None
    assert tally(ledger, "failed", 0)[0] == 2
    assert (tally(ledger, "failed", 1)[0], tally(ledger, "dropped", 0)[0]) == (1, 1)


def test_a_full_writer_drops_and_counts(ledger: Ledger) -> None:
    written: list[tuple[int, int]] = []
    writer = LedgerWriter(ledger, 3600, 10, on_write=lambda count, dropped: written.append((count, dropped)))
    for number in range(25):
        writer.answered(answered(number))
    assert writer.room == 0
    writer.close()
    assert written == [(10, 15)]
    assert writer.room == 10
    assert tally(ledger, "failed")[0] == 10, "what is dropped is in no tally"


def test_an_answer_is_kept_whole_or_not_at_all(ledger: Ledger) -> None:
    writer = LedgerWriter(ledger, 3600, 10)
    for number in range(3):
        writer.answered(answered(number, images=4))
    writer.close()
    assert count(ledger, predictions) == 8


def test_events_wait_for_a_database_that_was_away(ledger: Ledger, ledger_url: str) -> None:
    """Another connection holds the table; the writer's transaction fails or waits, and is repeated whole."""
    writer = LedgerWriter(ledger, 0.02, 10_000)
    with ledger.engine.begin() as connection:
        connection.execute(predictions.insert(), [prediction(0)._asdict()])  # SQLite: the only writer from here on
        for number in range(100):
            writer.answered(answered(number))
    writer.close()
    assert count(ledger, predictions) == 100
    assert tally(ledger, "failed")[0] == 100


def test_killed_processes_count_nothing_twice(ledger: Ledger, ledger_url: str) -> None:
    """A process that is killed while it writes, and one that sends the same requests again."""
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


def test_two_writers_of_two_gateways_add_up(ledger: Ledger) -> None:
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


def test_requests_are_forgotten_when_their_revision_has_ended(ledger: Ledger) -> None:
    def left() -> set[str]:
        with ledger.engine.connect() as connection:
            return set(connection.execute(select(predictions.c.request_id)).scalars())

    first = ledger.declare(EXPERIMENT)
    second = first.redefined(EXPERIMENT.model_copy(update={"effect": 0.05}))
    assert ledger.change(second, decision(1))
    rows = [prediction(number) for number in range(10)]
    rows += [prediction(number)._replace(revision=2) for number in range(10, 15)]
    ledger.write(rows, [Outcome(row.request_id, 0, 3, None, row.at) for row in rows], {KEY: Moments(15, 15)}, "writer")

    assert ledger.forget(before=1004.0) == 4
    assert left() == {f"id-{number}" for number in range(4, 15)}
    assert count(ledger, outcomes) == 11
    assert ledger.forget(before=2000.0) == 6
    assert left() == {f"id-{number}" for number in range(10, 15)}, "what runs is kept whole"
    assert ledger.change(second.ended("old", "stopped"), decision(2))
    assert ledger.forget(before=2000.0) == 5
    assert (count(ledger, outcomes), count(ledger, tallies), count(ledger, decisions)) == (0, 1, 2)


@pytest.mark.parametrize("url", ["mysql://somewhere/x", "nonsense", "oracle:///x"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///PATH"):
        Ledger(url)


def test_a_password_is_never_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        Ledger("postgresql+psycopg://me:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(caught.value)


def test_a_ledger_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(ConfigError, match=r"ledger\.db"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db")


def test_revisions_keep_who_stays(ledger: Ledger) -> None:
    canary = EXPERIMENT.model_copy(update={"mode": "canary"})
    stage = ledger.declare(canary)
    for step in range(1, 5):
        following = stage.ramped(step)
        assert ledger.change(following, decision(step))
        assert ledger.current()["nets"] == following
        stage = following
    assert stage.allocation.shares == {"new": 1.0}
