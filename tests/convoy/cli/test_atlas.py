"""`convoy atlas`: sweeps that continue where they stopped, the choice of a network, and files that are left alone."""

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


def test_a_second_sweep_keeps_measurements_and_adds_missing_ones(measured: Path) -> None:
    before = json.loads(measured.read_text())["cells"]
    done = atlas("--out", str(measured), "-b", "1", "-b", "2", "-b", "4", "--json")
    assert done.exit_code == 0, done.output
    after = json.loads(measured.read_text())["cells"]
    assert after[: len(before)] == before
    assert [cell["batch"] for cell in after] == [1, 2, 4]
    assert [cell["batch"] for cell in json.loads(done.stdout)["cells"]] == [1, 2, 4]


def test_the_cheapest_sufficient_network_is_named(measured: Path) -> None:
    done = atlas("--out", str(measured), "-b", "1", "--top1", "99", "--ms", "10000", "--json")
    assert json.loads(done.stdout)["cheapest"]["network"] == "lenet5-mnist"
    none = atlas("--out", str(measured), "-b", "1", "--top1", "99.9", "--ms", "10000")
    assert none.exit_code == 1
    assert "the best there is lenet5-mnist" in none.output


def test_a_corrupt_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "atlas.json"
    out.write_text("{")
    done = atlas("--out", str(out), "-b", "1")
    assert done.exit_code == 1
    assert "is no atlas" in done.output
    assert "move it away and measure again: convoy atlas" in done.output.replace("\n", " ")
    assert out.read_text() == "{"


def test_an_unrelated_page_is_not_overwritten(tmp_path: Path) -> None:
    """The page is written beside the data file, with the same name and the suffix .html."""
    (tmp_path / "report.html").write_text("mine")
    done = atlas("--out", str(tmp_path / "report.json"), "-b", "1")
    assert done.exit_code == 1
    assert "name another data file with --out" in done.output.replace("\n", " ")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "mine")]
    assert "give it the suffix .json" in atlas("--out", str(tmp_path / "report.html"), "-b", "1").output.replace(
        "\n", " "
    )


def test_an_untrained_network_does_not_overwrite_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "networks" / "resnet18"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"months of training")
    done = atlas("--out", str(tmp_path / "atlas.json"), "-b", "1", "-n", "resnet18")
    assert done.exit_code == 1
    assert "holds files that are not of an artifact" in done.output.replace("\n", " ")
    assert [path.name for path in folder.iterdir()] == ["weights.bin"]
