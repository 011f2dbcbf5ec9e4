"""Models of Triton's Python backend: `ImageModel` takes encoded images, `TensorModel` float tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import triton_python_backend_utils as backend

from benchmarks.plain_engine import Floats, decode, open_engine, top5


class TensorModel:
    """Input `input`, FP32 [rows, channels, height, width]; output `logits`, FP32 [rows, classes]."""

    def initialize(self, args: Mapping[str, str]) -> None:
        self._engine = open_engine()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        inputs = [self.rows(request) for request in requests]
        logits = self._engine.run(np.concatenate(inputs))
        ends = np.cumsum([len(rows) for rows in inputs])
        parts = np.split(logits, ends[:-1])
        return [backend.InferenceResponse([self.output(part)]) for part in parts]

    def rows(self, request: Any) -> Floats:
        tensor: Floats = backend.get_input_tensor_by_name(request, "input").as_numpy()
        return tensor

    def output(self, logits: Floats) -> Any:
        return backend.Tensor("logits", logits)


class ImageModel(TensorModel):
    """Input `image`, BYTES [rows, 1]; output `top5`, BYTES [rows, 1], each the JSON of one image's classes."""

    def rows(self, request: Any) -> Floats:
        images = backend.get_input_tensor_by_name(request, "image").as_numpy()
        return np.concatenate([decode(image) for image in images.ravel()])

    def output(self, logits: Floats) -> Any:
        documents = [[orjson.dumps(top5(row))] for row in logits]
        return backend.Tensor("top5", np.array(documents, np.object_))
