"""Ledgers on both databases: SQLite, and a PostgreSQL server started here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from benchmarks.chaos.postgres import postgres as start_postgres
from serve.experiments.ledger.store import Ledger


@pytest.fixture(scope="session")
def postgres(free_ports: Callable[[int], list[int]]) -> Iterator[str]:
    """URL of a PostgreSQL server of this session's own."""
    with start_postgres(free_ports(1)[0]) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server = str(request.getfixturevalue("postgres"))
    name = f"test_{os.urandom(6).hex()}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.rpartition("/")[0] + f"/{name}"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()
