"""The ledger: opens the database and writes to it. Writes are upserts on the primary key, so they can be repeated."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from convoy.errors import ConfigError
from serve.config.experiments import Experiment
from serve.experiments.allocation import Allocation
from serve.experiments.ledger.records import CounterKey, Decision, Moments, Outcome, Prediction
from serve.experiments.ledger.schema import decisions, outcomes, predictions, revisions, tallies
from serve.experiments.revision import Revision, first_revision

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x636F6E766F79  # PostgreSQL's advisory lock during migrations: "convoy" in ASCII
BUSY_SECONDS = 30.0

log = logging.getLogger("convoy.ledger")


class Ledger:
    """The database of experiments, migrated to the newest schema. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Opens and migrates the database. Raises ConfigError for an unknown or unreachable one."""
        try:
            self.engine = _engine(url)
            with _one_at_a_time(self.engine) as connection:
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise ConfigError(
                "ledger.url names an unsupported database; use sqlite:///PATH, or"
                " postgresql+psycopg://USER:PASSWORD@HOST/NAME with the extra convoy-serve[postgres]"
            ) from error
        except SQLAlchemyError as error:
            where = make_url(url).render_as_string(hide_password=True)
            raise ConfigError(f"the ledger at {where} cannot be opened: {type(error).__name__}") from error

    def close(self) -> None:
        """Closes the connections."""
        self.engine.dispose()

    def forget(self, before: float) -> int:
        """Deletes old predictions of revisions that no longer run, and old outcomes without a prediction.

        `before`: Unix time. Returns the number of deleted predictions. Counters and decisions are kept: they are small.
        """
        newest = select(revisions.c.experiment, func.max(revisions.c.revision)).group_by(revisions.c.experiment)
        states = self.current()
        with self.engine.begin() as connection:
            removed = 0
            for name, revision in connection.execute(newest).all():
                ended = states[name].state != "running"
                old = predictions.c.revision <= revision if ended else predictions.c.revision < revision
                where = (predictions.c.experiment == name, predictions.c.at < before, old)
                removed += connection.execute(delete(predictions).where(*where)).rowcount
            known = select(predictions.c.request_id)
            orphans = (outcomes.c.at < before, outcomes.c.request_id.not_in(known))
            connection.execute(delete(outcomes).where(*orphans))
            return removed

    def changed_at(self, revision: Revision) -> float:
        """Unix time at which a revision took effect."""
        where = (revisions.c.experiment == revision.definition.name, revisions.c.serial == revision.serial)
        with self.engine.connect() as connection:
            return float(connection.execute(select(revisions.c.at).where(*where)).scalar_one())

    def shares(self, experiment: str, revision: int) -> dict[int, dict[str, float]]:
        """The declared share of each arm at each stage of a revision."""
        where = (revisions.c.experiment == experiment, revisions.c.revision == revision)
        query = select(revisions.c.stage, revisions.c.spans).where(*where).order_by(revisions.c.serial)
        with self.engine.connect() as connection:
            return {stage: _allocation(spans).shares for stage, spans in connection.execute(query)}

    def write(
        self,
        new_predictions: Sequence[Prediction],
        new_outcomes: Sequence[Outcome],
        new_tallies: Mapping[CounterKey, Moments],
        writer: str,
    ) -> None:
        """Writes all rows in one transaction. `new_tallies`: totals since `writer` started."""
        latest = {(outcome.request_id, outcome.position): outcome for outcome in new_outcomes}
        with self.engine.begin() as connection:
            _upsert(connection, predictions, new_predictions)
            _upsert(connection, outcomes, [latest[key] for key in sorted(latest)], ("class_index", "reward", "at"))
            rows = [(*key, writer, *totals) for key, totals in new_tallies.items()]
            _upsert(connection, tallies, rows, Moments._fields)

    def declare(self, definition: Experiment) -> Revision:
        """The current revision of a declared experiment. A changed declaration stores a new revision first."""
        declared = definition.model_dump_json()
        while True:  # repeated when another process stores a revision first
            present = self.current().get(definition.name)
            if present is not None and self._declared(definition.name) == declared:
                return present
            try:
                following = first_revision(definition) if present is None else present.redefined(definition)
            except ValueError as error:
                log.error("%s is unchanged: %s", definition.name, error)
                assert present is not None
                return present
            with self.engine.begin() as connection:
                written = _upsert(connection, revisions, [_row(following, declared)])
            if written:
                return self.current()[definition.name]

    def change(self, revision: Revision, decision: Decision) -> bool:
        """Stores a revision and its decision. Returns False, and stores nothing, if another process stored this serial first."""
        with self.engine.begin() as connection:
            row = _row(revision, self._declared(revision.definition.name, connection))
            if not _upsert(connection, revisions, [row]):
                return False
            _upsert(connection, decisions, [decision])
            return True

    def current(self) -> dict[str, Revision]:
        """The newest revision of every experiment."""
        newest = select(revisions.c.experiment, func.max(revisions.c.serial)).group_by(revisions.c.experiment)
        with self.engine.connect() as connection:
            keys = {name: serial for name, serial in connection.execute(newest)}  # noqa: C416 rows are not pairs to mypy
            rows = [
                connection.execute(
                    select(revisions).where(revisions.c.experiment == name, revisions.c.serial == serial)
                ).mappings().one()
                for name, serial in keys.items()
            ]  # fmt: skip
        return {row["experiment"]: _revision(row) for row in rows}

    def serials(self) -> dict[str, int]:
        """The newest serial of every experiment. Cheap, because gateways poll it twice a second."""
        newest = select(revisions.c.experiment, func.max(revisions.c.serial)).group_by(revisions.c.experiment)
        with self.engine.connect() as connection:
            return {name: serial for name, serial in connection.execute(newest)}  # noqa: C416

    def _declared(self, name: str, connection: Connection | None = None) -> str:
        query = select(revisions.c.declared).where(revisions.c.experiment == name).order_by(revisions.c.serial.desc())
        with contextlib.ExitStack() as stack:
            connection = connection or stack.enter_context(self.engine.connect())
            return str(connection.execute(query.limit(1)).scalar() or "")


def _row(revision: Revision, declared: str) -> tuple[Any, ...]:
    """The values of a revision, in the order of the table's columns."""
    return (
        revision.definition.name,
        revision.serial,
        revision.revision,
        revision.stage,
        revision.step,
        revision.state,
        revision.definition.model_dump_json(),
        declared,
        orjson.dumps(revision.allocation.spans).decode(),
        time.time(),
        orjson.dumps(sorted(revision.stopped)).decode(),
        orjson.dumps(sorted(revision.held)).decode(),
    )


def _revision(row: Any) -> Revision:
    definition = Experiment.model_validate_json(row["definition"])
    return Revision(
        row["serial"],
        row["revision"],
        row["stage"],
        row["step"],
        row["state"],
        definition,
        _allocation(row["spans"]),
        not row["declared"],
        frozenset(orjson.loads(row["stopped"])),
        frozenset(orjson.loads(row["held"])),
    )


def _allocation(spans: str) -> Allocation:
    return Allocation(tuple((end, arm) for end, arm in orjson.loads(spans)))


def _upsert(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], changed: tuple[str, ...] = ()
) -> int:
    """Inserts rows, with values in the order of the columns. In rows that exist, only the `changed` columns are updated.

    Returns the number of rows; for a single row, 0 if it existed and nothing was updated.
    """
    if not rows:
        return 0
    if len(rows) == 1:
        statement = _statement(connection.dialect.name, table, changed, returning=True)
        return len(connection.exec_driver_sql(statement, tuple(rows[0])).all())
    statement = _statement(connection.dialect.name, table, changed, returning=False)
    # The driver's executemany is faster than SQLAlchemy's.
    connection.exec_driver_sql(statement, [tuple(row) for row in rows])
    return len(rows)


@cache
def _statement(backend: str, table: Table, changed: tuple[str, ...], returning: bool) -> str:
    """The SQL of an upsert, with positional parameters."""
    dialect, style = (postgresql, "format") if backend == "postgresql" else (sqlite, "qmark")
    statement = dialect.insert(table)
    keys = list(table.primary_key.columns)
    if changed:
        updates = {name: getattr(statement.excluded, name) for name in changed}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=updates)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    statement = statement.returning(keys[0]) if returning else statement
    return str(statement.compile(dialect=dialect.dialect(paramstyle=style)))


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ArgumentError(parsed.get_backend_name())
    if parsed.get_backend_name() == "postgresql":
        return create_engine(parsed, pool_pre_ping=True, pool_size=2)
    if parsed.database and parsed.database != ":memory:":
        _sqlite_file(parsed).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _tune(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def _sqlite_file(url: URL) -> Path:
    """The database file of a URL. SQLite also accepts a file URI (`sqlite:///file:/var/ledger.db?uri=true`)."""
    return Path(str(url.database).removeprefix("file:"))


@contextlib.contextmanager
def _one_at_a_time(engine: Engine) -> Iterator[Connection]:
    """A connection for migrations, under a lock: only one process migrates at a time."""
    with contextlib.ExitStack() as stack:
        if engine.dialect.name == "sqlite" and engine.url.database:
            lock = stack.enter_context(open(f"{_sqlite_file(engine.url)}.lock", "a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        connection = stack.enter_context(engine.begin())
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        yield connection
