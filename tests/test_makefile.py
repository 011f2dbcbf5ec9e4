"""`make test` on a machine that lacks Debian packages, for a user who may not install them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("target", ["test", "test-slow"])
def test_without_root_and_sudo_it_names_the_missing_packages_and_stops(folder: Path, target: str) -> None:
    commands, work = folder / "bin", folder / "work"
    commands.mkdir()
    work.mkdir()
    shutil.copy(REPOSITORY / "Makefile", work)
    for name in ("make", "id"):  # and no sudo
        (commands / name).symlink_to(str(shutil.which(name)))
    dpkg = commands / "dpkg"
    dpkg.write_text('#!/bin/sh\ncase "$*" in *wrk*) exit 1;; esac\n')
    dpkg.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.chown(work, NOBODY, NOBODY)
    done = subprocess.run(
        ["make", target],
        cwd=work,
        env={"PATH": str(commands)},
        user=NOBODY if root else None,
        group=NOBODY if root else None,
        extra_groups=[] if root else None,
        capture_output=True,
        text=True,
        check=False,
    )
    message, stopped = done.stderr.splitlines()
    assert message == "the tests need Debian packages that are missing; as root: apt-get install wrk"
    assert stopped.startswith("make: ***")
    assert not done.stdout
    assert [path.name for path in work.iterdir()] == ["Makefile"]
