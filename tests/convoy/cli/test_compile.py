"""`convoy compile` and `convoy engines` on a small artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner, Result

from convoy.cli import main
from convoy.engine_names import Precision
from models.engines.backends.registry import MODULES
from serve.config.loading import parse_settings
from serve.config.schema import Listen
from tests.artifacts import write_artifact
from tests.conftest import REPOSITORY
from tests.snippets import snippets

# The quantizer raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def convoy(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("command", ["compile", "atlas"])
def test_the_command_line_offers_every_engine_and_precision(command: str) -> None:
    choices = {parameter.name: getattr(parameter.type, "choices", ()) for parameter in main.commands[command].params}
    assert tuple(choices.get("engine") or choices["engines"]) == tuple(MODULES)
    assert tuple(choices.get("precision") or choices["precisions"]) == get_args(Precision)


def test_an_engine_is_compiled_listed_explained_verified_and_pruned(tmp_path: Path) -> None:
    artifact, store = str(write_artifact(tmp_path / "a", "a", convolution=True)), str(tmp_path / "store")
    assert "no engines" in convoy("engines", "ls", "--store", store).output
    built = convoy("compile", artifact, "--engine", "openvino", "--batch", "1,2", "--store", store, "--json")
    assert built.exit_code == 0, built.output
    document = json.loads(built.stdout)
    assert (document["judgement"]["status"], document["recipe"]["batches"]) == ("accepted", [1, 2])
    again = convoy("compile", artifact, "--engine", "openvino", "--batch", "1,2", "--store", store)
    assert "it was in the store already" in again.output
    listed = json.loads(convoy("engines", "ls", "--store", store, "--json").stdout)
    assert [engine["key"] for engine in listed] == [document["key"]]
    assert document["key"][:6] in convoy("engines", "ls", "--store", store).output
    explained = convoy("engines", "explain", artifact, "--engine", "openvino", "--store", store, "--json")
    assert json.loads(explained.stdout)["serves"]["key"] == document["key"]
    other = convoy("engines", "explain", artifact, "--store", store).output
    assert "no stored engine serves it" in other
    assert "different: engine, versions" in other
    assert "no engine is damaged" in convoy("engines", "verify", "--store", store).output

    (Path(document["folder"]) / "image.onnx").write_bytes(b"")
    damaged = convoy("engines", "verify", "--store", store)
    assert (damaged.exit_code, "image.onnx" in damaged.output) == (1, True)
    (tmp_path / "store" / f".new-{'0' * 64}-left").mkdir()
    pruned = convoy("engines", "prune", "--store", store).output
    assert ("left by a build" in pruned, "image.onnx is missing" in pruned, "0 engines" in pruned) == (True, True, True)


def test_prune_removes_engines_only(tmp_path: Path) -> None:
    """A wrong folder named as the store loses no other files."""
    for name in ("photos", "engine", ".new-ideas", ".curves", "f" * 64):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.json").write_text("{}")
    pruned = convoy("engines", "prune", "--store", str(tmp_path))
    assert pruned.exit_code == 0, pruned.output
    left = {path.parent.name for path in tmp_path.glob("*/mine.json")} | {
        path.parent.name for path in tmp_path.glob(".*/mine.json")
    }
    assert left == {"photos", "engine", ".new-ideas", ".curves"}
    assert "photos" not in convoy("engines", "verify", "--store", str(tmp_path)).output


def test_the_engines_of_a_configuration_are_built_in_advance(tmp_path: Path) -> None:
    artifact = str(write_artifact(tmp_path / "a", "a", convolution=True))
    models = [{"name": "a", "artifact": artifact, "engine": "openvino"}, {"name": "lenet5-mnist"}]
    config = tmp_path / "convoy.yaml"
    config.write_text(yaml.safe_dump({"engines": str(tmp_path / "store"), "models": models}))
    for _ in range(2):
        done = convoy("engines", "build", "--config", str(config))
        assert done.output.startswith("a: openvino")
        assert done.output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet2-cifar10",), "did you mean 'resnet20-cifar10'"),
        (("lenet5-mnist", "--batch", "0"), "sizes must be at least 1"),
        (("lenet5-mnist", "--batch", "many"), "not a list of numbers"),
        (("lenet5-mnist", "--precision", "bf16"), "does not run bf16"),
        (("squeezenet1_1-imagenet", "--precision", "int8"), "--calibration"),
        (("lenet5-mnist", "--calibration", "/nowhere"), "holds no images"),
    ],
)
def test_refusals_name_the_remedy(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = convoy("compile", *arguments, "--store", str(tmp_path / "store"))
    assert done.exit_code != 0
    assert words in done.output


def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    for snippet in snippets("docs/engines.md", "bash"):
        assert snippet.run(Listen(), tmp_path, CONVOY_CACHE=str(tmp_path), PYTHONPATH=str(REPOSITORY))


def test_the_configuration_of_the_page_is_valid() -> None:
    for snippet in snippets("docs/engines.md", "yaml"):
        assert parse_settings(yaml.safe_load(snippet.text)).models[0].precision == "int8"
