"""Reads answers: the class of each row, the arm, the request id and the server's stage times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from convoy.errors import InvalidInput
from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.wire.tensors import BYTES, decode_raw
from loadtest.payloads.item import Expected
from loadtest.plan import Protocol

NO_STAGES: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """`classes` holds (index, label) per row; an absent index is -1, an absent label "". Stages are in milliseconds."""

    classes: tuple[tuple[int, str], ...]
    arm: str = ""
    id: str = ""
    stages_ms: Mapping[str, float] = field(default_factory=dict)

    def correct(self, expected: tuple[Expected, ...]) -> int:
        """Number of rows that have the expected class."""
        return sum(
            wanted == (index if isinstance(wanted, int) else label)
            for wanted, (index, label) in zip(expected, self.classes, strict=False)
        )


Reader = Callable[[bytes, int | None], Answer]


def reader_for(protocol: Protocol) -> Reader:
    """The reader of a protocol's answers. It takes the body and, for Open Inference over HTTP, the length of its JSON part.

    Readers raise ValueError for answers that the protocol does not allow.
    """
    if protocol == "grpc-classify":
        return _read_grpc_classify
    if protocol == "grpc":
        return _read_grpc
    if protocol.startswith("oip"):
        return _read_oip
    return _read_raw if protocol == "raw" else _read_classify


def _read_classify(body: bytes, header_length: int | None) -> Answer:
    try:
        document = orjson.loads(body)
        classes = tuple((row["classes"][0]["index"], row["classes"][0]["label"]) for row in document["predictions"])
        return Answer(
            classes, document.get("arm") or "", document.get("id") or "", document.get("timings_ms") or NO_STAGES
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a classification: {error!r}") from error


def _read_raw(body: bytes, header_length: int | None) -> Answer:
    """TorchServe's form, {label: probability, ...}; any other body is an answer without a class."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Answer(())
    if isinstance(document, dict) and document and all(isinstance(value, float | int) for value in document.values()):
        return Answer(((-1, max(document, key=lambda label: float(document[label]))),))
    return Answer(())


def _read_oip(body: bytes, header_length: int | None) -> Answer:
    document = orjson.loads(body if header_length is None else body[:header_length])
    tail = memoryview(b"" if header_length is None else body)[header_length or 0 :]
    try:
        first = document["outputs"][0]
        shape = tuple(first["shape"])
        size = (first.get("parameters") or {}).get("binary_data_size")
        data = first["data"] if size is None else tail[:size]
        classes = _classes_of(first["datatype"], shape, data)
        arm = (document.get("parameters") or {}).get("arm") or ""
        return Answer(classes, str(arm), document.get("id") or "")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not an inference answer: {error!r}") from error


def _parsed(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _read_grpc(body: bytes, header_length: int | None) -> Answer:
    message = _parsed(open_inference_pb2.ModelInferResponse, body)
    if not message.outputs:
        raise ValueError("the inference answer has no outputs")
    first = message.outputs[0]
    data: Any = message.raw_output_contents[0] if message.raw_output_contents else list(first.contents.fp32_contents)
    arm = message.parameters["arm"].string_param if "arm" in message.parameters else ""
    return Answer(_classes_of(first.datatype, tuple(first.shape), data), arm, message.id)


def _read_grpc_classify(body: bytes, header_length: int | None) -> Answer:
    message = _parsed(classifier_pb2.ClassifyResponse, body)
    classes = tuple((row.classes[0].index, row.classes[0].label) for row in message.predictions if row.classes)
    stages = {entry.name: value for entry, value in message.timings_ms.ListFields()}
    return Answer(classes, getattr(message, "arm", ""), message.id, stages)


def _classes_of(datatype: str, shape: tuple[int, ...], data: Any) -> tuple[tuple[int, str], ...]:
    """The best class of each row, from scores or from classification strings `value:index[:label]`."""
    if datatype == BYTES:
        texts = data if isinstance(data, list) else [item.decode() for item in _raw(datatype, shape, data)]
        per_row = max(1, shape[-1] if len(shape) > 1 else len(texts))
        best = [text.split(":", 2) for text in texts[::per_row]]
        return tuple((int(parts[1]), parts[2] if len(parts) > 2 else "") for parts in best)
    scores = np.asarray(data, np.float64) if isinstance(data, list) else np.asarray(_raw(datatype, shape, data))
    rows = scores.reshape(shape[0] if len(shape) > 1 else 1, -1)
    if rows.size == 0:
        raise ValueError("the answer has no scores")
    return tuple((int(best), "") for best in rows.argmax(axis=1))


def _raw(datatype: str, shape: tuple[int, ...], data: Any) -> Any:
    try:
        return decode_raw("output", datatype, shape, data).data
    except InvalidInput as error:
        raise ValueError(str(error)) from error
