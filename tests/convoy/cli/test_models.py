"""`convoy models` without a server: architectures and layers."""

from __future__ import annotations

import json

from click.testing import CliRunner

from convoy.cli import main


def test_the_list_has_counts_papers_and_checkpoints() -> None:
    answer = CliRunner().invoke(main, ["models", "--architectures", "--json"])
    rows = {row["name"]: row for row in json.loads(answer.output)}
    assert rows["vgg16"]["params"] == 138_357_544
    assert rows["vgg16"]["macs"] == 15_470_264_320
    assert rows["resnet20"]["checkpoints"] == ["resnet20-cifar10"]
    assert rows["googlenet"]["paper"] == "arXiv 1409.4842"


def test_the_architectures_are_printed_as_a_table() -> None:
    answer = CliRunner().invoke(main, ["models", "--architectures"], env={"COLUMNS": "160"})
    assert answer.exit_code == 0
    assert "densenet201" in answer.output


def test_one_network_is_shown_layer_by_layer() -> None:
    answer = CliRunner().invoke(main, ["models", "squeezenet1_1"])
    assert "features.12.expand3x3" in answer.output
    assert "1,235,496 parameters" in answer.output


def test_an_unknown_network_is_one_line_of_error() -> None:
    answer = CliRunner().invoke(main, ["models", "resnet51"])
    assert answer.exit_code == 1
    assert "did you mean" in answer.output
