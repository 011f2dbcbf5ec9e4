"""An ONNX graph in the generator's process as the system under test: the same network and batch limit, without a server.

It shows what a server costs: the ratio of both is the server's efficiency. Batches are greedy, as in a server: a run takes
all samples that wait, up to the limit. A run releases the interpreter's lock, so LoadGen's thread can issue meanwhile.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from convoy.errors import ConfigError
from loadtest.drivers.mlperf.system import NO_CLASS, TEXT_LENGTH, Account, Completed, System
from loadtest.payloads import Item, prepare
from loadtest.payloads.item import Expected
from loadtest.plan import Payload

DATATYPES = {"tensor(float)": "FP32", "tensor(uint8)": "UINT8"}  # ONNX Runtime's names and the protocol's
SILENT = 4  # ONNX Runtime's log level "fatal"; its failures are raised


@dataclass(frozen=True)
class GraphSubject:
    """An ONNX file, run by ONNX Runtime on `threads` threads in batches of at most `batch`."""

    path: Path
    payload: Payload
    batch: int
    threads: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 1:
            raise ConfigError("--batch and --threads must be at least 1")

    @property
    def label(self) -> str:
        return str(self.path)

    def open(self, seed: int) -> System:
        session = _open_session(self.path, self.threads)
        entry = session.get_inputs()[0]
        if isinstance(entry.shape[0], int) and entry.shape[0] != 1:
            raise ConfigError(
                f"{self.path} takes batches of exactly {entry.shape[0]}; export it with a dynamic batch dimension"
            )
        batch = 1 if entry.shape[0] == 1 else self.batch
        prepared = prepare(self._payload(entry), seed)
        rows = np.stack([_row(item, entry.shape[1:], self.path) for item in prepared.items])
        expected = tuple(item.expected for item in prepared.items)
        if texts := [label for label in expected if isinstance(label, str)]:
            raise ConfigError(
                f"label {texts[0]!r} is no class number, and a graph has no label texts: use class numbers"
            )
        return GraphSystem(session, rows, expected, batch, prepared.about)

    def _payload(self, entry: Any) -> Payload:
        """The payload, with type and shape of the graph's input where they are open. Raises ConfigError."""
        datatype = DATATYPES.get(entry.type)
        if datatype is None:
            raise ConfigError(
                f"{self.path} takes {entry.type}, not float or uint8; such a graph cannot be measured here"
            )
        if self.payload.kind != "tensor":
            if datatype != "UINT8":
                raise ConfigError(
                    f"{self.path} takes normalised floats, not pixels: use --tensor, or the graph for images (image.onnx)"
                )
            return self.payload
        shape = self.payload.shape or tuple(size if isinstance(size, int) else -1 for size in entry.shape[1:])
        if any(size < 0 for size in shape):
            raise ConfigError(f"{self.path} accepts any shape {list(shape)}; choose one with --shape")
        return replace(self.payload, shape=shape, datatype=datatype)


def _open_session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("--onnx needs ONNX Runtime: pip install 'convoy-serve[cpu]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SILENT
    # Threads that spin between runs would take cores from LoadGen; Convoy's engines do not spin either.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConfigError(f"{path} cannot be loaded by ONNX Runtime: {str(error)[:TEXT_LENGTH]}") from error


def _row(item: Item, shape: list[Any], path: Path) -> NDArray[Any]:
    """A sample as the graph's input without the batch dimension: the tensor, or the pixels [height, width, channels]."""
    if item.tensor is not None:
        return item.tensor
    channels = shape[-1]
    try:
        with Image.open(io.BytesIO(item.image)) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ConfigError(f"an image cannot be read: {error}") from error
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    wanted = tuple(size if isinstance(size, int) else have for size, have in zip(shape, pixels.shape, strict=True))
    if pixels.shape != wanted:
        raise ConfigError(
            f"{path} takes images of {wanted[1]}x{wanted[0]} pixels, not {pixels.shape[1]}x{pixels.shape[0]}: "
            "resize them as the model's preprocessing does; for synthetic images set --side"
        )
    return pixels


class GraphSystem:
    """Runs batches of waiting samples in a thread."""

    def __init__(
        self, session: Any, rows: NDArray[Any], expected: tuple[Expected, ...], batch: int, about: str
    ) -> None:
        self.account = Account()
        self.on_complete: Completed = lambda ids, classes: None
        self.about = about
        self.sample_count = len(rows)
        self._session, self._rows, self._expected = session, rows, expected
        self._input = session.get_inputs()[0].name
        self._outputs = [session.get_outputs()[0].name]
        self._batch = np.empty((batch, *rows.shape[1:]), rows.dtype)
        self._waiting: deque[tuple[int, int]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def load(self, indices: list[int]) -> None:
        """Does nothing: all samples are in memory."""

    def issue(self, ids: list[int], indices: list[int]) -> None:
        with self._changed:
            self._waiting.extend(zip(ids, indices, strict=True))
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                count = min(len(self._batch), len(self._waiting))
                ids, indices = zip(*(self._waiting.popleft() for _ in range(count)), strict=True)
            self.on_complete(ids, self._run(indices))

    def _run(self, indices: tuple[int, ...]) -> list[int]:
        batch = np.take(self._rows, indices, axis=0, out=self._batch[: len(indices)])
        account = self.account
        try:
            scores = self._session.run(self._outputs, {self._input: batch})[0]
        except Exception as error:  # noqa: BLE001 a sample without completion would stop LoadGen for ever
            account.fail("the run failed", len(indices), str(error))
            return [NO_CLASS] * len(indices)
        classes: list[int] = scores.reshape(len(indices), -1).argmax(axis=1).tolist()
        expected = [self._expected[index] for index in indices]
        account.answered += len(indices)
        account.labelled += sum(label is not None for label in expected)
        account.correct += sum(
            label is not None and label == found for label, found in zip(expected, classes, strict=True)
        )
        return classes

    def client_cpu_s(self) -> float:
        return 0.0

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
