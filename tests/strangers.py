"""A new user: an empty home, no caches, and a minimal environment without CI variables, which would switch telemetry off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

CONVOY = (sys.executable, "-c", "from convoy.cli import main; main()")


@dataclass(frozen=True)
class Stranger:
    """The user's home, temporary folder and environment."""

    home: Path
    temporary: Path
    environment: Mapping[str, str]

    def run(self, *command: str) -> str:
        """Runs a program, which must succeed. Returns its standard output."""
        completed = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    def left(self, *own: str) -> list[str]:
        """Files outside of the folders `own`, whose paths are relative to the home or to the temporary folder."""
        roots = (self.home, self.temporary)
        found = [path.relative_to(root) for root in roots for path in root.rglob("*")]
        return sorted(str(path) for path in found if not any(_related(path, Path(folder)) for folder in own))


def _related(path: Path, own: Path) -> bool:
    return own == path or own in path.parents or path in own.parents


@contextmanager
def stranger(**environment: str) -> Iterator[Stranger]:
    """Creates such a user, and deletes its folders when the block ends. `environment`: additional variables."""
    folder = Path(tempfile.mkdtemp(prefix="convoy-"))  # a short path: Ray puts Unix sockets there
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    minimal = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(temporary)}
    try:
        yield Stranger(home, temporary, minimal | environment)
    finally:
        shutil.rmtree(folder)
