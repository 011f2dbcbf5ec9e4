"""`convoy import`: networks that are served afterwards, and inputs that are refused."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

import models.importing
from convoy.cli import main
from models.artifact import Artifact
from models.zoo.squeezenet import squeezenet_cifar
from serve.config.loading import parse_settings
from tests.artifacts import write_artifact
from tests.models.onnx_nets import SIDE, write_net
from tests.serve.listeners import serving

# The exporter raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


def ask_served(output: str, pixels: NDArray[np.uint8], folder: Path, ports: list[int]) -> Any:
    """The answer of a gateway that is configured with the output of the command."""
    listen = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    catalog = yaml.safe_load(output[output.index("models:") :])
    settings = parse_settings(catalog | {"listen": listen, "runtime_dir": str(folder / "node")})
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    with serving(settings) as gateway:
        url = f"{gateway.http}/v1/models/flowers/classify"
        return httpx.post(url, content=png.getvalue(), timeout=60).raise_for_status().json()


def test_own_weights_are_served_after_one_command(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
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
    reply = ask_served(answer.output, np.zeros((32, 32, 3), np.uint8), tmp_path, free_ports(3))
    assert {entry["label"] for entry in reply["predictions"][0]["classes"]} == {"rose", "tulip", "lily"}


def test_an_onnx_file_is_served_after_one_command(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    write_net(tmp_path / "net.onnx")
    description = tmp_path / "d.json"
    description.write_text(json.dumps({"labels": ["rose", "tulip", "lily", "aster"], "mean": [0, 0, 0]}))
    arguments = ["--onnx", str(tmp_path / "net.onnx"), "--description", str(description), "--std", "1,1,1"]
    answer = CliRunner().invoke(main, ["import", "flowers", *arguments, "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    reply = ask_served(answer.output, pixels, tmp_path, free_ports(3))
    best = reply["predictions"][0]["classes"][0]
    original = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = original.run(None, {"image": (pixels.transpose(2, 0, 1)[np.newaxis] / 255).astype(np.float32)})
    assert best["index"] == int(logits.argmax())
    assert best["label"] == ("rose", "tulip", "lily", "aster")[best["index"]]


def test_files_of_the_user_are_not_overwritten(tmp_path: Path) -> None:
    """--out names the folder of the network, which contains an unrelated weights.bin."""
    write_net(tmp_path / "net.onnx")
    (tmp_path / "weights.bin").write_bytes(b"months of training")
    (tmp_path / "labels.txt").write_text("rose\ntulip\nlily\naster\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = ["--onnx", str(tmp_path / "net.onnx"), "--labels", str(tmp_path / "labels.txt")]
    answer = CliRunner().invoke(main, ["import", "flowers", *arguments, "--out", str(tmp_path)])
    assert answer.exit_code == 1
    assert "which the artifact is made from; name another folder with --out" in answer.output.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("option", ["--labels", "--description"])
def test_a_folder_with_the_labels_or_the_description_is_not_overwritten(option: str, tmp_path: Path) -> None:
    out = write_artifact(tmp_path / "out", "old")
    text = "rose\ntulip\nlily\naster\n" if option == "--labels" else '{"labels": ["rose", "tulip", "lily", "aster"]}'
    (out / "weights.bin").write_text(text)
    arguments = ["--onnx", str(write_net(tmp_path / "net.onnx")), option, str(out / "weights.bin")]
    answer = CliRunner().invoke(main, ["import", "flowers", *arguments, "--out", str(out)])
    assert answer.exit_code == 1
    assert (out / "weights.bin").read_text() == text
    assert Artifact.load(out).manifest.name == "old"


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = squeezenet_cifar(classes=3).state_dict()
    name = next(key for key, tensor in weights.items() if tensor.ndim == 4)
    weights[name][0, 0, 0, 0] = torch.nan
    save_file(weights, tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("rose\ntulip\nlily\n")
    arguments = ["-a", "squeezenet_cifar", "--weights", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(main, ["import", "flowers", *arguments, "--labels", str(tmp_path / "labels.txt")])
    assert answer.exit_code == 1
    assert f"w.safetensors: {name} holds NaN or infinity" in answer.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet5-imagenet"], "did you mean"),
        (["flowers", "-a", "resnet18"], "--weights"),
        (["flowers", "--weights", __file__], "--architecture"),
        (["flowers", "-a", "resnet18", "--timm", "resnet18"], "exclude each other"),
        (["flowers", "-a", "resnet18", "--weights", __file__], "--labels"),
        (["flowers", "-a", "resnet18", "--weights", __file__, "--mean", "a"], "list of numbers"),
        (["Flowers", "--onnx", __file__], "Flowers"),
        (["flowers", "--onnx", __file__, "--labels", "nowhere"], "no labels in nowhere"),
    ],
)
def test_refusals_name_the_reason(arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(main, ["import", *arguments])
    assert answer.exit_code != 0
    assert words in answer.output


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("onnx", ["flowers", "--onnx", __file__], "compile"),
        ("torch", ["resnet18-imagenet"], "train"),
        ("torch", ["flowers", "-a", "resnet18", "--weights", __file__], "train"),
        ("torch", ["flowers", "--timm", "resnet18"], "hubs"),
        ("torch", ["flowers", "--torchvision", "resnet18"], "hubs"),
    ],
)
def test_a_missing_package_is_reported_with_the_extra_for_this_source(
    package: str, arguments: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("from_onnx", "from_weights", "from_hubs"):
        monkeypatch.delitem(sys.modules, f"models.importing.{module}", raising=False)
        monkeypatch.delattr(models.importing, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    answer = CliRunner().invoke(main, ["import", *arguments])
    assert answer.exit_code == 1
    assert f"needs {package}; install it with: pip install 'convoy-serve[{extra}]'" in " ".join(answer.output.split())
