"""`convoy atlas`: a sweep into a file and a page, from where it stopped, and the choice from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from convoy.cli import main
from models.artifact import BUNDLED

LENET = str(BUNDLED / "lenet5-mnist")
QUICK = ("--seconds", "0.01", "--threads", "1", "--dataset", "mnist")


def atlas(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["atlas", "-a", LENET, *QUICK, *arguments])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("atlas") / "atlas.json"
    done = atlas("--out", str(out), "-b", "1", "-b", "2")
    assert done.exit_code == 0, done.output
    assert f"data: {out}" in done.output
    assert out.with_suffix(".html").exists()
    return out


def test_what_was_measured_is_kept_and_the_rest_is_added(measured: Path) -> None:
    before = json.loads(measured.read_text())["cells"]
    done = atlas("--out", str(measured), "-b", "1", "-b", "2", "-b", "4", "--json")
    assert done.exit_code == 0, done.output
    after = json.loads(measured.read_text())["cells"]
    assert after[: len(before)] == before
    assert [cell["batch"] for cell in after] == [1, 2, 4]
    assert [cell["batch"] for cell in json.loads(done.stdout)["cells"]] == [1, 2, 4]


def test_the_cheapest_that_is_good_and_fast_enough_is_named(measured: Path) -> None:
    done = atlas("--out", str(measured), "-b", "1", "--top1", "99", "--ms", "10000", "--json")
    assert json.loads(done.stdout)["cheapest"]["network"] == "lenet5-mnist"
    none = atlas("--out", str(measured), "-b", "1", "--top1", "99.9", "--ms", "10000")
    assert none.exit_code == 1
    assert "the best there is lenet5-mnist" in none.output


def test_a_corrupt_file_is_left_alone_and_told(tmp_path: Path) -> None:
    out = tmp_path / "atlas.json"
    out.write_text("{")
    done = atlas("--out", str(out), "-b", "1")
    assert done.exit_code == 1
    assert "is no atlas" in done.output
    assert "move it away and measure again: convoy atlas" in done.output.replace("\n", " ")
    assert out.read_text() == "{"
