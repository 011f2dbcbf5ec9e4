"""The contract of engines: the same tests for all installed backends, TensorRT's double, and torch as the reference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convoy.engine_names import BACKENDS, CPU_BACKENDS
from convoy.errors import ArtifactError, ConfigError, EngineFailed
from models.artifact import Preprocessing
from models.compile.export import export
from models.engines.backends.registry import Backend, find_backend
from models.engines.backends.torch_reference import TorchEngine
from models.engines.engine import Engine
from models.graphs.preprocessing_graph import add_preprocessing
from tests.models.engines.backends import tensorrt_double

STEPS = Preprocessing(3, 16, 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), pad=1)
CLASSES = 5
FORMS = ("image", "tensor")
DOUBLE = "tensorrt's double"

# The exporter raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(16, CLASSES)).eval()


@pytest.fixture(scope="module")
def graphs(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    export(net, STEPS, folder)
    add_preprocessing(STEPS, folder, cast_first=True)  # required by strongly typed backends, accepted by the others
    return folder


@contextmanager
def opened(name: str, patch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The backend of a name; TensorRT with its double for `DOUBLE`. Skips the test if the backend needs a GPU that is absent."""
    if name == DOUBLE:
        with tensorrt_double.installed(patch):
            yield find_backend("tensorrt")
        return
    try:
        found = find_backend(name)
    except ConfigError as error:
        if name in CPU_BACKENDS:
            raise
        pytest.skip(f"no GPU: {str(error).removeprefix('no GPU: ')}")
    yield found


@pytest.fixture(params=[*BACKENDS, DOUBLE])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    with opened(request.param, monkeypatch) as found:
        yield found


@pytest.fixture(params=["torch", *BACKENDS, DOUBLE])
def load(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, net: nn.Module, graphs: Path
) -> Iterator[Callable[[Any], Engine]]:
    """Loads either form in the backend under test."""
    if request.param == "torch":
        yield partial(TorchEngine, net, STEPS)
        return
    with opened(request.param, monkeypatch) as found:
        yield lambda form: found.load(graphs / f"{form}.onnx", 2, "fp32")


def rows(engine: Engine, count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shape = (count, *engine.input.shape[1:])
    if engine.input.dtype == np.uint8:
        return generator.integers(0, 256, shape, np.uint8)
    return generator.normal(size=shape).astype(np.float32)


def test_input_and_output_specs_are_the_same_in_every_backend(load: Callable[[Any], Engine]) -> None:
    image, tensor = load("image"), load("tensor")
    assert (image.input.name, image.input.dtype, image.input.shape) == ("image", np.dtype(np.uint8), (-1, 16, 16, 3))
    assert (tensor.input.name, tensor.input.dtype, tensor.input.shape) == (
        "input",
        np.dtype(np.float32),
        (-1, 3, 18, 18),
    )
    for engine in (image, tensor):
        assert (engine.output.name, engine.output.dtype, engine.output.shape) == (
            "logits",
            np.dtype(np.float32),
            (-1, CLASSES),
        )


@pytest.mark.parametrize("form", FORMS)
def test_logits_equal_those_of_torch_at_every_batch_size(
    load: Callable[[Any], Engine], net: nn.Module, form: Any
) -> None:
    engine, reference = load(form), TorchEngine(net, STEPS, form)
    for count in (1, 3, 8, 2):
        batch = rows(engine, count, seed=count)
        logits = engine.run(batch)
        assert (logits.shape, logits.dtype) == ((count, CLASSES), np.dtype(np.float32))
        np.testing.assert_allclose(logits, reference.run(batch), rtol=1e-4, atol=1e-4)


def test_a_later_run_does_not_overwrite_earlier_logits(load: Callable[[Any], Engine]) -> None:
    engine = load("image")
    first = engine.run(rows(engine, 2, seed=1))
    kept = first.copy()
    engine.run(rows(engine, 2, seed=2))
    np.testing.assert_array_equal(first, kept)
    first += 1  # the caller may write to it


def test_a_strided_view_is_a_valid_batch(load: Callable[[Any], Engine]) -> None:
    engine = load("image")
    batch = rows(engine, 6)
    np.testing.assert_allclose(engine.run(batch[::2]), engine.run(batch)[::2], rtol=1e-4, atol=1e-5)


def test_threads_share_an_engine(load: Callable[[Any], Engine]) -> None:
    engine = load("image")
    batches = [rows(engine, 1 + seed % 3, seed) for seed in range(40)]
    expected = [engine.run(batch) for batch in batches]
    start = threading.Barrier(4)

    def work(first: int) -> list[np.ndarray]:
        start.wait()
        return [engine.run(batch) for batch in batches[first::4]]

    with ThreadPoolExecutor(4) as pool:
        for first, answers in enumerate(pool.map(work, range(4))):
            for logits, wanted in zip(answers, expected[first::4], strict=True):
                np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


def test_a_batch_that_does_not_fit_fails_and_the_next_one_runs(load: Callable[[Any], Engine]) -> None:
    engine = load("image")
    good = rows(engine, 2)
    for bad in (good[:, :5], good.astype(np.float32), good[0]):
        with pytest.raises(EngineFailed):
            engine.run(bad)
    assert engine.run(good).shape == (2, CLASSES)


@pytest.mark.parametrize("cut", ["absent", "nothing", "half", "without weights"])
def test_a_truncated_graph_is_refused(backend: Backend, cut: str, graphs: Path, tmp_path: Path) -> None:
    graph = (graphs / "tensor.onnx").read_bytes()
    if cut != "absent":
        (tmp_path / "tensor.onnx").write_bytes({"nothing": b"", "half": graph[: len(graph) // 2]}.get(cut, graph))
    with pytest.raises(ArtifactError, match=r"tensor\.onnx cannot be loaded"):
        backend.load(tmp_path / "tensor.onnx", 1, "fp32")
