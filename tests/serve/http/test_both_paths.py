"""A request gets the same answer on the hot path and beside it, but for what changes with every request: ids and times."""

from __future__ import annotations

import base64
import gzip
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pytest

from models.artifact import BUNDLED
from serve.api.direct import DirectRequest
from serve.http.http1.hot_request import HotRequest
from tests.serve.listeners import Serving, StartGateway

MODEL = "lenet5-mnist"
DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
CLASSIFY, PREDICT, TORCHSERVE = f"/v1/models/{MODEL}/classify", f"/v1/models/{MODEL}:predict", f"/predictions/{MODEL}"
INFER, TENSOR = f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}-tensor/infer"
JSON = {"content-type": "application/json"}
DEEP = 1000
PIXELS = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(1, 1, 32, 32)


def tensor_json(**changes: object) -> dict[str, object]:
    entry = {"name": "input", "datatype": "FP32", "shape": [1, 1, 32, 32], "data": PIXELS.ravel().tolist()}
    return {"inputs": [{**entry, **changes}]}


def binary(document: dict[str, object], data: bytes) -> tuple[dict[str, str], bytes]:
    head = orjson.dumps(document)
    return {"inference-header-content-length": str(len(head))}, head + data


def sized_tensor(size: int, **more: object) -> dict[str, object]:
    entry = {"name": "input", "datatype": "FP32", "shape": [1, 1, 32, 32], "parameters": {"binary_data_size": size}}
    return {"inputs": [entry], **more}


@dataclass(frozen=True)
class Case:
    """A request, and the status of its answer."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


RAW = PIXELS.tobytes()
BINARY = binary(sized_tensor(len(RAW), parameters={"binary_data_output": True}), RAW)
MIXED = binary(sized_tensor(len(RAW), id="mine"), RAW)
SHORT = binary(sized_tensor(len(RAW)), RAW[:-4])
CASES = {
    "an image": Case(CLASSIFY, DIGIT),
    "an image with an id": Case(CLASSIFY, DIGIT, {"x-request-id": "mine"}),
    "an image in JSON": Case(CLASSIFY, orjson.dumps({"images": [base64.b64encode(DIGIT).decode()] * 2, "top_k": 2}), JSON),
    "an image of a version": Case(f"/v1/models/{MODEL}/versions/1/classify", DIGIT),
    "KServe": Case(PREDICT, orjson.dumps({"instances": [{"b64": base64.b64encode(DIGIT).decode()}]}), JSON),
    "TorchServe": Case(TORCHSERVE, DIGIT),
    "a tensor in JSON": Case(TENSOR, orjson.dumps(tensor_json()), JSON),
    "a tensor in binary": Case(TENSOR, BINARY[1], BINARY[0]),
    "a binary tensor answered in JSON": Case(TENSOR, MIXED[1], MIXED[0]),
    "a raw image": Case(INFER, DIGIT, {"inference-header-content-length": "0"}),
    "compressed answers": Case(CLASSIFY, DIGIT, {"accept-encoding": "gzip"}),
    "a time limit": Case(CLASSIFY, DIGIT, {"x-request-timeout-ms": "20000", "x-request-priority": "3"}),
    "no body": Case(CLASSIFY, b"", status=400),
    "no image": Case(CLASSIFY, b"nonsense", status=400),
    "no JSON": Case(TENSOR, b"{", JSON, status=400),
    "an unknown input": Case(TENSOR, orjson.dumps(tensor_json(name="other")), JSON, status=400),
    "an impossible shape": Case(TENSOR, orjson.dumps(tensor_json(shape=[1, 3, 32, 32])), JSON, status=400),
    "a tensor that is cut off": Case(TENSOR, SHORT[1], SHORT[0], status=400),
    "a length that is no number": Case(TENSOR, BINARY[1], {"inference-header-content-length": "9" * 5000}, status=400),
    "a deep list of pixels": Case(PREDICT, b'{"instances":' + b"[" * DEEP + b"0" + b"]" * DEEP + b"}", JSON, status=400),
    "a deep object": Case(PREDICT, b'{"instances":[' + b'{"b64":' * DEEP + b"0" + b"}" * DEEP + b"]}", JSON, status=400),
    "a priority that is no number": Case(CLASSIFY, DIGIT, {"x-request-priority": "first"}, status=400),
    "a time limit that has passed": Case(CLASSIFY, DIGIT, {"x-request-timeout-ms": "0"}, status=504),
    "an id that is too long": Case(CLASSIFY, DIGIT, {"x-request-id": "x" * 500}, status=400),
    "an id with a line feed in its answer": Case(CLASSIFY, DIGIT, {"x-request-id": "a\tb"}, status=400),
}  # fmt: skip


def head(case: Case, line: str, *fields: str) -> bytes:
    lines = [line, "host: here", *(f"{name}: {value}" for name, value in case.headers.items()), *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def hot(case: Case) -> bytes:
    return head(case, f"POST {case.path} HTTP/1.1", f"content-length: {len(case.body)}") + case.body


def in_chunks(case: Case) -> bytes:
    pieces = [case.body[start : start + 100] for start in range(0, len(case.body), 100)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head(case, f"POST {case.path} HTTP/1.1", "transfer-encoding: chunked") + coded + b"0\r\n\r\n"


def expecting(case: Case) -> bytes:
    return (
        head(case, f"POST {case.path} HTTP/1.1", f"content-length: {len(case.body)}", "expect: 100-continue")
        + case.body
    )


def of_a_script(case: Case) -> bytes:
    return (
        head(case, f"POST {case.path} HTTP/1.1", f"content-length: {len(case.body)}", "origin: http://here") + case.body
    )


def old(case: Case) -> bytes:
    fields = (f"content-length: {len(case.body)}", "connection: keep-alive")
    return head(case, f"POST {case.path} HTTP/1.0", *fields) + case.body


def absolute(case: Case) -> bytes:
    return head(case, f"POST http://here{case.path} HTTP/1.1", f"content-length: {len(case.body)}") + case.body


def compressed(case: Case) -> bytes:
    body = gzip.compress(case.body)
    fields = (f"content-length: {len(body)}", "content-encoding: gzip")
    return head(case, f"POST {case.path} HTTP/1.1", *fields) + body


def compressed_in_parts(case: Case) -> bytes:
    middle = len(case.body) // 2
    body = gzip.compress(case.body[:middle]) + gzip.compress(case.body[middle:])
    fields = (f"content-length: {len(body)}", "content-encoding: X-GZip, identity")
    return head(case, f"POST {case.path} HTTP/1.1", *fields) + body


def compressed_twice(case: Case) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    body = gzip.compress(deflater.compress(case.body) + deflater.flush())
    fields = (f"content-length: {len(body)}", "content-encoding: deflate", "content-encoding: gzip")
    return head(case, f"POST {case.path} HTTP/1.1", *fields) + body


def not_compressed(case: Case) -> bytes:
    fields = (f"content-length: {len(case.body)}", "content-encoding:")
    return head(case, f"POST {case.path} HTTP/1.1", *fields) + case.body


WAYS = (
    in_chunks, expecting, of_a_script, old, absolute, compressed, compressed_in_parts, compressed_twice, not_compressed,
)  # fmt: skip
CHANGES = re.compile(rb'("(receive|decode|queue|run|post|total)":)[\d.]+|("id":)"[0-9a-f]+-[0-9a-f]+"')


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(models=[{"name": MODEL}]) as one:
        yield one


def ask(gateway: Serving, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer, without what changes with every request."""
    host, port = gateway.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client, client.makefile("rb") as stream:
        client.sendall(request)
        status = 100
        while status == 100:
            status = int(stream.readline().split()[1])
            fields = dict(iter(lambda: _field(stream.readline()), None))
        body = stream.read(int(fields["content-length"]))
    if re.fullmatch("[0-9a-f]+-[0-9a-f]+", fields.get("x-request-id", "")):
        fields["x-request-id"] = "made"
    if fields.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
        del fields["content-length"]
    elif CHANGES.search(body):
        del fields["content-length"]
    fields.pop("connection", None)
    return status, fields, CHANGES.sub(rb"\1\3", body)


def _field(line: bytes) -> tuple[str, str] | None:
    name, _, value = line.decode().strip().partition(": ")
    return (name, value) if name else None


@pytest.mark.parametrize("name", CASES)
def test_every_way_gives_the_same_answer(gateway: Serving, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = 0
    for kind in (HotRequest, DirectRequest):
        start = kind.start

        def counted(request: Any, start: Callable[[Any], None] = start) -> None:
            nonlocal started
            started += 1
            start(request)

        monkeypatch.setattr(kind, "start", counted)
    case = CASES[name]
    expected = ask(gateway, hot(case))
    assert expected[0] == case.status, expected
    assert started == 1
    for way in WAYS:
        assert ask(gateway, way(case)) == expected, way.__name__
    assert started == 1
