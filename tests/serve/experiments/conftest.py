"""Ledgers on both databases: SQLite, and a PostgreSQL server that the session starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.schema import CreateSchema

from benchmarks.chaos.postgres import postgres as start_postgres
from serve.experiments.ledger.store import Ledger


@pytest.fixture(scope="session")
def postgres(free_ports: Callable[[int], list[int]]) -> Iterator[str]:
    """URL of a PostgreSQL server for this session."""
    with start_postgres(free_ports(1)[0]) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty SQLite file, or of an empty PostgreSQL schema, which is created a hundred times faster than a database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server = str(request.getfixturevalue("postgres"))
    name = f"test_{os.urandom(6).hex()}"
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(CreateSchema(name))
    engine.dispose()
    return f"{server}?options=-csearch_path%3D{name}"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()
