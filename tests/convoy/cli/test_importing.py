from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

from convoy.cli import main
from models.artifact import Artifact
from models.zoo.squeezenet import squeezenet_cifar

# The exporter's own internals warn of each other.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


def test_weights_of_ones_own_become_an_artifact(tmp_path: Path) -> None:
    save_file(squeezenet_cifar(classes=3).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("rose\ntulip\nlily\n")
    arguments = ["-a", "squeezenet_cifar", "--weights", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(
        main, ["import", "flowers", *arguments, "--labels", str(tmp_path / "labels.txt"), "--mean", "0.5,0.5,0.5"]
    )
    assert answer.exit_code == 0, answer.output
    manifest = Artifact.load(tmp_path / "out").manifest
    assert manifest.labels == ("rose", "tulip", "lily")
    assert manifest.preprocessing.mean == (0.5, 0.5, 0.5)
    assert "artifact:" in answer.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet5-imagenet"], "did you mean"),
        (["flowers", "-a", "resnet18"], "--labels"),
    ],
)
def test_refusals_explain_themselves(arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(main, ["import", *arguments])
    assert answer.exit_code != 0
    assert words in answer.output
