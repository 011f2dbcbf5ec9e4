"""A temporary PostgreSQL server that can be stopped and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from convoy.errors import ConfigError


def program(name: str) -> str:
    """A program of PostgreSQL. Raises ConfigError."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if not found:
        raise ConfigError(f"{name} is missing; run make test-setup")
    return found


@dataclass(frozen=True)
class Postgres:
    """A server in a folder. PostgreSQL refuses to run as root; then it runs as the Debian user `postgres`."""

    folder: Path
    user: str
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://convoy@127.0.0.1:{self.port}/postgres"

    def run(self, name: str, *arguments: str) -> None:
        identity = self.user if os.getuid() == 0 else None
        command = [program(name), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, user=identity, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=120)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-l", str(self.folder / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stops it at once, as when its machine fails."""
        self.run("pg_ctl", "-m", "immediate", "-w", "stop")


@contextmanager
def postgres(port: int) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="convoy-postgres-"))
    server = Postgres(folder, "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name, port)
    shutil.chown(folder, server.user)
    server.run("initdb", "-A", "trust", "-U", "convoy", "--no-sync")
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
