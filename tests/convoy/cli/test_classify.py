"""`convoy classify` on files and folders, with a server whose models answer or fail depending on their names."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from convoy.cli import main
from tests.conftest import REPOSITORY
from tests.convoy.identity_server import Server, running

CONVOY = [sys.executable, "-c", "from convoy.cli import main; main()"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.jpg", "deeper/c.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def classify(server: Server, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["classify", *map(str, arguments), "--url", server.http])


def test_a_folder_is_printed_as_lines_of_json(server: Server, folder: Path) -> None:
    done = classify(server, folder, "--json")
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.png", "b.jpg", "c.gif"]
    assert lines[0]["model"] == "m"
    assert lines[0]["classes"] == [{"index": 3, "label": "cat", "probability": 0.75}]
    assert lines[0]["ms"] == 1.5
    assert done.stderr.splitlines() == [
        f"convoy: {folder / 'notes.txt'} is skipped: its suffix is not that of an image"
    ]


def test_many_skipped_files_are_summarized(server: Server, folder: Path) -> None:
    for number in range(30):
        (folder / f"{number}\nconvoy.txt").touch()
    done = classify(server, folder, "--json")
    assert len(done.stderr.splitlines()) == 21
    assert done.stderr.splitlines()[-1] == "convoy: 11 more files are skipped"


@pytest.mark.parametrize("over_grpc", [False, True])
def test_a_folder_is_printed_as_a_table(server: Server, folder: Path, over_grpc: bool) -> None:
    address = ["--grpc", server.grpc.removeprefix("grpc://")] if over_grpc else []
    done = classify(server, folder, *address)
    assert done.exit_code == 0
    assert done.stdout.count("cat") == 3
    assert "c.gif" in done.stdout


def test_failed_images_are_reported_and_set_the_exit_code(server: Server, folder: Path) -> None:
    done = classify(server, folder, "-m", "InvalidInput", "-m", "m", "--json")
    assert done.exit_code == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("error", "") for line in lines] == ["as asked"] * 3 + [""] * 3
    assert done.stderr.count("a.png: as asked") == 1


def test_an_error_of_every_image_is_reported_once(server: Server, folder: Path) -> None:
    done = classify(server, folder, "-m", "NotFound")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[1:] == ["convoy: as asked"]


def test_a_folder_without_images_is_refused(server: Server, tmp_path: Path) -> None:
    done = classify(server, tmp_path)
    assert done.exit_code == 1
    assert "no images" in done.stderr


def test_a_file_that_cannot_be_read_is_reported(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/proc/self/mem")
    done = classify(server, tmp_path, "--json")
    assert done.exit_code == 1
    assert "cannot be read" in json.loads(done.stdout)["error"]


def test_a_terminal_gets_a_progress_bar_and_a_pipe_the_lines(server: Server, folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*CONVOY, "classify", str(folder), "--json", "--url", server.http]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=theirs, timeout=120, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert len(done.stdout.splitlines()) == 3
    assert "images" in shown
    assert "3/3" in shown
