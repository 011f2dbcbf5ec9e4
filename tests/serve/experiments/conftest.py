"""Ledgers on both databases: SQLite, and a PostgreSQL server started here."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from serve.experiments.ledger.store import Ledger


def _program(name: str) -> str:
    """A program of PostgreSQL; `make test-setup` installs it."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    assert found, f"{name} is missing; run make test-setup"
    return found


@pytest.fixture(scope="session")
def postgres(free_ports: Callable[[int], list[int]]) -> Iterator[str]:
    """URL of a PostgreSQL server of this session's own. It refuses to run as root, so then it runs as its Debian user."""
    folder = Path(tempfile.mkdtemp(prefix="convoy-postgres-"))
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    shutil.chown(folder, user)
    data, port = folder / "data", free_ports(1)[0]

    def run(*command: str) -> None:
        identity = user if os.getuid() == 0 else None
        subprocess.run(command, check=True, user=identity, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    run(_program("initdb"), "-D", str(data), "-A", "trust", "-U", "convoy", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run(_program("pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start")
    yield f"postgresql+psycopg://convoy@127.0.0.1:{port}/postgres"
    run(_program("pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder)


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
