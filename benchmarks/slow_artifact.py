"""A slow copy of an artifact with the same logits, as a degraded member of an ensemble."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.artifact import IMAGE_MODEL, MANIFEST, file_hash
from models.engines.backends.registry import load_engine

TRIAL_LOOPS = 50_000


def write_slow_copy(source: Path, out: Path, seconds: float) -> Path:
    """Copies `source` to `out` with a loop in the image graph, so that a run takes about `seconds` on this machine."""
    shutil.copytree(source, out)
    _write(source, out, TRIAL_LOOPS)
    engine = load_engine(out / IMAGE_MODEL, 1)
    row = np.zeros((1, *engine.input.shape[1:]), engine.input.dtype)
    engine.run(row)
    start = time.perf_counter()
    engine.run(row)
    _write(source, out, round(TRIAL_LOOPS * seconds / (time.perf_counter() - start)))
    return out


def _write(source: Path, out: Path, loops: int) -> None:
    model = onnx.load_model(str(source / IMAGE_MODEL), load_external_data=False)
    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        for position, name in enumerate(node.output):
            if name == output.name:
                node.output[position] = "before_the_loop"
    graph.initializer.append(numpy_helper.from_array(np.array(loops, np.int64), "loops"))
    graph.node.append(helper.make_node("Loop", ["loops", "", "before_the_loop"], [output.name], body=_times_one()))
    (out / IMAGE_MODEL).write_bytes(model.SerializeToString())
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["files"][IMAGE_MODEL] = file_hash(out / IMAGE_MODEL)
    (out / MANIFEST).write_text(json.dumps(manifest))


def _times_one() -> onnx.GraphProto:
    """A loop body that multiplies by one: it costs time and changes nothing."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["next_condition"]),
            helper.make_node("Mul", ["state", "one"], ["next_state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("next_condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.array(1.0, np.float32), "one")],
    )
