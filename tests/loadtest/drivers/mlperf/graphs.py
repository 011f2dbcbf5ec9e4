"""Tiny ONNX graphs with known classes, and a subject whose samples fail after a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from loadtest.drivers.mlperf.in_process import GraphSubject
from loadtest.drivers.mlperf.system import Account, Completed, System
from loadtest.plan import Payload

CLASSES = 10
SIDE = 8


def weights(inputs: int) -> NDArray[np.float32]:
    """The weights of a graph's only layer."""
    return np.random.default_rng(1).standard_normal((inputs, CLASSES)).astype(np.float32)


def class_of(row: NDArray[Any]) -> int:
    """The class that a graph gives a row."""
    flat = row.astype(np.float32).ravel()
    return int((flat @ weights(flat.size)).argmax())


def write_graph(path: Path, kind: int = TensorProto.FLOAT, shape: Sequence[int | str] = ("n", 3, 4, 4)) -> Path:
    """A linear classifier of inputs of this type and shape."""
    inputs = int(np.prod([size for size in shape[1:] if isinstance(size, int)]))
    nodes = [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", kind, list(shape))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], CLASSES])],
        [numpy_helper.from_array(weights(inputs), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def tensor_subject(folder: Path, batch: int = 4) -> GraphSubject:
    """A graph that takes float tensors."""
    return GraphSubject(write_graph(folder / "tensor.onnx"), Payload("tensor", count=12), batch, threads=1)


@dataclass(frozen=True)
class FailingSubject:
    """Answers the samples of the warm-up; fails half of LoadGen's."""

    label: str = "failing"

    def open(self, seed: int) -> System:
        return _Failing()


class _Failing:
    about = "nothing"
    sample_count = 4

    def __init__(self) -> None:
        self.account = Account()
        self.on_complete: Completed = lambda ids, classes: None
        self._loads = self._queries = 0

    def load(self, indices: list[int]) -> None:
        self._loads += 1

    def issue(self, ids: list[int], indices: list[int]) -> None:
        self._queries += 1
        if self._loads > 1 and self._queries % 2:
            self.account.fail("out of luck", len(ids), "nothing\nleft")
        else:
            self.account.answered += len(ids)
        self.on_complete(ids, [0] * len(ids))

    def client_cpu_s(self) -> float:
        return 0.0

    def close(self) -> None:
        pass
