"""Export to ONNX: files, and parity with torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from convoy.errors import ArtifactError
from models.artifact import Preprocessing
from models.compile.export import PARITY_BATCHES, TOLERANCE, check_parity, export
from models.engines.backends.registry import load_engine
from models.zoo.lenet import LeNet5
from models.zoo.resnet import resnet20

GREY = Preprocessing(1, 28, 28, (0.1,), (0.5,), pad=2)
COLOUR = Preprocessing(3, 32, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

# The exporter raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[LeNet5, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lenet")
    net = LeNet5()
    assert export(net, GREY, folder)["largest_relative_difference"] <= TOLERANCE
    return net, folder


def test_both_graphs_share_one_weights_file(exported: tuple[LeNet5, Path]) -> None:
    _, folder = exported
    assert (folder / "weights.bin").stat().st_size > 100_000
    for name in ("image.onnx", "tensor.onnx"):
        assert (folder / name).stat().st_size < 20_000
        onnx.checker.check_model(str(folder / name))


def test_a_weights_file_in_the_working_directory_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"months of training")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    export(LeNet5(), GREY, Path("out"), batches=(1,))
    assert (tmp_path / "weights.bin").read_bytes() == b"months of training"
    assert (tmp_path / "out" / "weights.bin").stat().st_size > 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "weights.bin"]


def test_batch_sizes_not_used_in_the_export_work(exported: tuple[LeNet5, Path]) -> None:
    net, folder = exported
    assert 2 not in PARITY_BATCHES
    engine = load_engine(folder / "tensor.onnx", 1)
    images = np.random.default_rng(3).normal(size=(13, 1, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(engine.run(images), expected, rtol=1e-4, atol=1e-4)


def test_a_graph_with_other_logits_is_refused(exported: tuple[LeNet5, Path]) -> None:
    _, folder = exported
    other = LeNet5()
    with pytest.raises(ArtifactError, match="differ from torch"):
        check_parity(other.eval(), GREY, folder)


def test_colour_networks_are_exported(tmp_path: Path) -> None:
    parity = export(resnet20(), COLOUR, tmp_path)
    assert parity["largest_relative_difference"] <= TOLERANCE
    assert load_engine(tmp_path / "image.onnx", 1).input.shape == (-1, 32, 32, 3)
