"""A PYTHONPATH that hides a module of the server is refused before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convoy.cli.import_path import INSTALLED, LIBRARY, check_import_path
from convoy.errors import ConfigError
from tests.conftest import REPOSITORY

CONVOY = Path(sys.executable).with_name("convoy")


@pytest.mark.parametrize(("command", "name"), [("up", "models"), ("demo", "serve")])
def test_commands_name_the_file_that_hides_a_package(tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('the file was imported')")
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(
        [CONVOY, command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"convoy: {tmp_path / name}.py hides the Python module '{name}'")
    assert "PYTHONPATH" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "file", ["models.py", "serve/__init__.py", "convoy.py", "ray.py", "numpy.py", "http.py", "queue/__init__.py"]
)
def test_files_that_hide_a_module_are_refused(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(ConfigError, match=f"hides the Python module '{file.split('/')[0].removesuffix('.py')}'"):
        check_import_path({"PYTHONPATH": f"{tmp_path}{os.pathsep}/opt/tools"})


@pytest.mark.parametrize("entry", ["", "."])
def test_relative_entries_are_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    (tmp_path / "models.py").touch()
    monkeypatch.chdir(tmp_path)
    check_import_path({"PYTHONPATH": ""})  # Python treats an empty variable as unset
    with pytest.raises(ConfigError, match="models"):
        check_import_path({"PYTHONPATH": f"/opt/tools{os.pathsep}{entry}"})


def test_other_files_and_folders_are_accepted(tmp_path: Path) -> None:
    for file in ("sys.py", "train.py", "models.yaml", "helpers/__init__.py", "numpy/__init__.py", "serve/readme.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    check_import_path({})
    check_import_path(
        {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, REPOSITORY, INSTALLED, LIBRARY, tmp_path / "none")))}
    )


def test_entries_that_cannot_be_read_are_skipped_as_python_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    check_import_path({"PYTHONPATH": os.pathsep.join((str(tmp_path / "loop"), "x" * 5000))})
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    check_import_path({"PYTHONPATH": "."})
