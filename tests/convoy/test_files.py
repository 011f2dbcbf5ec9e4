"""Atomic replacement of files, and comparison of paths."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from convoy.files import expand_home, is_same_file, staged_file, write_file

FULL_DISK = """
import pathlib, resource, sys
from convoy.files import expand_home, write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
write_file(pathlib.Path(sys.argv[1]), "x" * 1000)
"""


def test_a_replaced_file_keeps_its_mode_and_its_links(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_file(link, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777, link.is_symlink()) == ("new", 0o640, True)
    write_file(tmp_path / "other", b"\0")
    assert (tmp_path / "other").read_bytes() == b"\0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "other"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(file)], check=False, timeout=60, capture_output=True, text=True
    )
    assert "File too large" in done.stderr
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def fail() -> None:
        with staged_file(file) as staged:
            staged.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_file(pipe, "through")
    reader.join()
    assert (read, pipe.is_fifo(), list(tmp_path.iterdir())) == (["through"], True, [pipe])


def test_links_to_a_file_are_the_same_file(tmp_path: Path) -> None:
    file, hard, soft, other = (tmp_path / name for name in ("file", "hard", "soft", "other"))
    file.touch()
    other.touch()
    hard.hardlink_to(file)
    soft.symlink_to(file)
    assert [is_same_file(file, path) for path in (hard, soft, other, tmp_path / "absent")] == [True, True, False, False]


def test_the_home_of_an_unknown_user_is_not_expanded() -> None:
    assert expand_home("~/x") == Path.home() / "x"
    assert expand_home("~no-such-user/x") == Path("~no-such-user/x")
