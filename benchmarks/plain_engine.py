"""What the limits and all peers share: Pillow decodes an image, ONNX Runtime runs the float graph.

The environment names the work: BENCH_MODEL (an ONNX file that takes float32 NCHW), BENCH_GRAY=1 (28x28 grey pixels from 0 to 1
instead of 224x224 normalised RGB), BENCH_THREADS (threads of an engine). Peers import this module in environments of their own,
so it needs numpy, ONNX Runtime and Pillow only.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

BATCH = 32
GRAY = os.environ.get("BENCH_GRAY") == "1"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]

Floats = NDArray[Any]


class Engine:
    """A session of an ONNX file, with this many threads."""

    def __init__(self, model: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, rows: Floats) -> Floats:
        """Logits [rows, classes] of inputs [rows, channels, height, width]."""
        logits: Floats = self._session.run(None, {self._input: rows})[0]
        return logits


def open_engine() -> Engine:
    """The engine that the environment names."""
    return Engine(os.environ["BENCH_MODEL"], int(os.environ["BENCH_THREADS"]))


def decode(body: bytes, gray: bool = GRAY) -> Floats:
    """An encoded image as the network's input, [1, channels, height, width]."""
    image = Image.open(io.BytesIO(body))
    if gray:
        return np.asarray(image.convert("L").resize((28, 28)), np.float32)[None, None] / 255
    image.draft("RGB", (256, 256))
    rgb = image.convert("RGB")
    scale = 256 / min(rgb.size)
    rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BILINEAR)
    left, top = (rgb.width - 224) // 2, (rgb.height - 224) // 2
    planes = np.asarray(rgb.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1) / 255
    return ((planes - MEAN) / STD)[None]


def top5(logits: Floats) -> list[tuple[int, float]]:
    """The five likeliest classes of logits [classes], each with its probability."""
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    return [(int(index), float(weights[index])) for index in np.argsort(-weights)[:5]]
