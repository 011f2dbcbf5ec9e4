"""The examples of docs/ensembles.md work, with the bundled samples as the data set; invalid input is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from convoy.cli import main
from convoy.cli.demo import load_samples
from serve.config.loading import parse_settings
from tests.conftest import REPOSITORY
from tests.snippets import snippets

PAGE = (REPOSITORY / "docs" / "ensembles.md").read_text()
COMMANDS = re.findall(r"^\$ convoy ((?:explain|ensemble).*)$", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configuration files of the page, and the CIFAR-10 samples in a folder per label."""
    for snippet in snippets("docs/ensembles.md", "yaml"):
        name = snippet.text.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(snippet.text)
    for sample in load_samples():
        if sample.model == "resnet20-cifar10":
            target = tmp_path / "held-out" / sample.expected
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.path, target)
    return tmp_path


def invoke(folder: Path, command: str) -> Result:
    words = command.split()
    if "ensemble" in words:
        words = [word for word in words if word != "--data"]
        words = [word for word in words if word != "cifar10"] + ["--data", str(folder / "held-out")]
        words += ["-m", "resnet20-cifar10"] if "suggest" in words else []
    words = [str(folder / word) if word.endswith(".yaml") else word for word in words]
    return CliRunner().invoke(main, words, env={"COLUMNS": "160"})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(folder: Path, command: str) -> None:
    done = invoke(folder, command)
    assert done.exit_code == 0, done.output
    if "explain" in command:
        assert re.search(r"cifar10-cascade \(cascade\)", done.output)
        assert "81.1" in done.output  # million multiply-accumulates of ResNet-20's two views


def test_suggested_sets_are_valid_configuration(folder: Path) -> None:
    shown = invoke(folder, "ensemble suggest --data cifar10").output
    document: dict[str, Any] = yaml.safe_load(shown[shown.index("ensembles:") :])
    assert parse_settings(document).ensembles[0].members[0].model == "resnet20-cifar10"
    front = json.loads(invoke(folder, "ensemble suggest --data cifar10 --json").output)["front"]
    assert [point["accuracy"] for point in front] == sorted(point["accuracy"] for point in front)
    assert all(point["predicted_ms"] > 0 and point["measured_ms"] > 0 for point in front)


def test_fitted_weights_and_thresholds_are_valid_configuration(folder: Path) -> None:
    weights = json.loads(invoke(folder, "ensemble fit cifar10-looks --config convoy.yaml --json").output)
    (ensemble,) = parse_settings({"ensembles": weights["ensembles"]}).ensembles
    assert sum(member.weight for member in ensemble.members) == pytest.approx(1, abs=1e-3)
    for options in ("--within 100", "--within 0 --measure entropy", "--budget-ms 1000"):
        fitted = json.loads(invoke(folder, f"ensemble fit cifar10-pair --config cascade.yaml --json {options}").output)
        parse_settings({"cascades": fitted["cascades"]})
        assert fitted["held_out"]["asked"][0] == 1
        if options == "--within 100":  # any accuracy suffices, so the second stage is never asked
            assert fitted["held_out"]["asked"][1] == 0


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("ensemble fit nothing --config convoy.yaml", "known: cifar10-flip, cifar10-looks, cifar10-cascade"),
        ("ensemble fit cifar10-cascade --config convoy.yaml", "not ensembles"),
        ("ensemble suggest --budget-ms 0.000001", "no model runs within"),
        ("ensemble suggest -m lenet5-mnist", "different labels"),
        ("ensemble suggest -m nothing", "unknown model 'nothing'"),
        ("ensemble fit cifar10-pair --config cascade.yaml --budget-ms 0.000001", "more than the budget"),
    ],
)
def test_impossible_fits_are_refused_with_the_reason(folder: Path, command: str, hint: str) -> None:
    done = invoke(folder, command)
    assert done.exit_code == 1
    assert hint in done.output


def test_a_folder_without_images_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "held-out")
    (folder / "held-out").mkdir()
    assert "put them into folders named airplane" in invoke(folder, "ensemble suggest").output
