"""A user whose home is empty and whose environment says nothing: neither of CI, which silences telemetry, nor of caches."""

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
    """Where they keep files, where programs put temporary ones, and what programs are told."""

    home: Path
    temporary: Path
    environment: Mapping[str, str]

    def run(self, *command: str) -> str:
        """What a program prints that ends well."""
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def left(self, *own: str) -> list[str]:
        """The files that are neither in folders of `own`, named from the home or the temporary folder, nor these folders."""
        roots = (self.home, self.temporary)
        found = [path.relative_to(root) for root in roots for path in root.rglob("*")]
        return sorted(str(path) for path in found if not any(_related(path, Path(one)) for one in own))


def _related(path: Path, own: Path) -> bool:
    return own == path or own in path.parents or path in own.parents


@contextmanager
def stranger(**environment: str) -> Iterator[Stranger]:
    folder = Path(tempfile.mkdtemp(prefix="convoy-"))  # short: Ray puts Unix sockets there
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    told = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(temporary)}
    try:
        yield Stranger(home, temporary, told | environment)
    finally:
        shutil.rmtree(folder)
