"""Requests whose head and JSON part have come before are answered without a coroutine, with the same answers and counts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from serve.api.direct import MOST_PLANS, DirectRequest
from serve.batching.batcher import Batcher
from serve.telemetry.definitions import REQUESTS
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.serve.http.test_both_paths import (
    INFER,
    MODEL,
    PIXELS,
    RAW,
    TENSOR,
    Case,
    ask,
    binary,
    hot,
    in_chunks,
    sized_tensor,
)
from tests.serve.listeners import Serving, StartGateway
from tests.serve.recording import record_started
from tests.waiting import until

BINARY_ANSWER = {"binary_data_output": True}


def tensor_case(rows: int = 1, data: bytes = RAW, path: str = TENSOR, **entry: Any) -> Case:
    tensor = {"name": "input", "datatype": "FP32", "shape": [rows, 1, 32, 32], **entry}
    content = data * rows
    tensor["parameters"] = {"binary_data_size": len(content)}
    fields, body = binary({"inputs": [tensor], "parameters": BINARY_ANSWER}, content)
    return Case(path, body, fields)


def with_headers(**headers: str) -> Case:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(SAMPLE, headers={**SAMPLE.headers, **names})


def with_document(**more: object) -> Case:
    fields, body = binary(sized_tensor(len(RAW), **more), RAW)
    return Case(TENSOR, body, fields)


SAMPLE = tensor_case()
IMAGE: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1]}
BAD = np.full((1, 1, 32, 32), np.nan, np.float32).tobytes()
DIRECT = {
    "a row": SAMPLE,
    "three rows": tensor_case(3),
    "pixels": tensor_case(1, bytes(range(256)) * 3 + bytes(16), INFER, **IMAGE),
    "a time limit": with_headers(x_request_timeout_ms="20000", x_request_priority="3"),
    "a time limit that has passed": replace(with_headers(x_request_timeout_ms="0"), status=504),
    "a priority that is no number": replace(with_headers(x_request_priority="first"), status=400),
    "a client that reads gzip": with_headers(accept_encoding="gzip, deflate"),
    "numbers that are none": replace(tensor_case(data=BAD), status=400),
}
OTHERS = {
    "a short tensor": replace(SAMPLE, body=SAMPLE.body[:-4], status=400),
    "an id": with_document(id="mine", parameters=BINARY_ANSWER),
    "an id in a header": with_headers(x_request_id="mine"),
    "an answer in JSON": with_document(),
    "only gzip": with_headers(accept_encoding="gzip"),
    "a priority": with_document(parameters={**BINARY_ANSWER, "priority": 2}),
    "another name": replace(tensor_case(name="other"), status=400),
    "another type": replace(tensor_case(datatype="FP64", data=RAW * 2), status=400),
    "more rows than a batch": tensor_case(40),
    "no row": tensor_case(0),
}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(models=[{"name": MODEL}]) as one:
        yield one


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[DirectRequest]:
    return record_started(monkeypatch)


def counted(gateway: Serving) -> Counter[str]:
    """Requests over HTTP by their code."""
    found: Counter[str] = Counter()
    for key, values in total(read_files(gateway.metrics.folder))[REQUESTS.name].items():
        labels = dict(key)
        if labels["protocol"] == "http":
            found[labels["code"]] += int(values[0])
    return found


@contextlib.contextmanager
def counts(gateway: Serving, **expected: int) -> Iterator[None]:
    until(lambda: gateway.plane.in_flight == 0)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), gateway.loop).result(
        30
    )  # the turn that counts an answer is over
    before = counted(gateway)
    yield
    until(lambda: counted(gateway) - before == Counter({name.removeprefix("x"): n for name, n in expected.items()}))
    until(lambda: gateway.plane.in_flight == 0)


def learn(gateway: Serving, case: Case) -> None:
    """Sends the request until it is planned: the second time its head is kept, the third time its JSON part."""
    for _ in range(3):
        ask(gateway, hot(case))


@pytest.mark.parametrize("name", DIRECT)
def test_a_known_request_gets_the_answer_of_the_general_way(
    gateway: Serving, started: list[DirectRequest], name: str
) -> None:
    case = DIRECT[name]
    expected = ask(gateway, in_chunks(case))
    assert expected[0] == case.status
    for _ in range(4):
        assert ask(gateway, hot(case)) == expected
    assert started
    with counts(gateway, **{f"x{case.status}": 1}):
        assert ask(gateway, hot(case)) == expected


@pytest.mark.parametrize("name", OTHERS)
def test_all_other_requests_go_the_general_way(gateway: Serving, started: list[DirectRequest], name: str) -> None:
    case = OTHERS[name]
    expected = ask(gateway, in_chunks(case))
    for _ in range(3):
        assert ask(gateway, hot(case)) == expected
    assert not started


def test_numbers_that_follow_a_known_json_part_are_new(gateway: Serving) -> None:
    learn(gateway, SAMPLE)
    other = replace(SAMPLE, body=SAMPLE.body.replace(RAW, (1 - PIXELS).tobytes()))
    assert ask(gateway, hot(other)) == ask(gateway, in_chunks(other)) != ask(gateway, hot(SAMPLE))


def test_a_known_json_part_before_a_tensor_of_another_size_is_refused(gateway: Serving) -> None:
    learn(gateway, SAMPLE)
    for body in (SAMPLE.body[:-4], SAMPLE.body + b"more", SAMPLE.body[: -len(RAW)]):
        assert ask(gateway, hot(replace(SAMPLE, body=body)))[0] == 400


def test_a_body_of_json_alone_is_parsed(gateway: Serving, started: list[DirectRequest]) -> None:
    """Its tensor is in the JSON part, which the header may cover completely."""
    entry = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": [0] * 784}
    body = orjson.dumps({"inputs": [entry], "parameters": BINARY_ANSWER}).replace(b" ", b"")
    headers = {"inference-header-content-length": str(len(body))}
    case = Case(INFER, body, headers)
    assert {ask(gateway, hot(case))[0] for _ in range(4)} == {200}
    assert not started


def test_rows_that_no_longer_fit_into_a_run_are_split(gateway: Serving, started: list[DirectRequest]) -> None:
    case = tensor_case(4)
    learn(gateway, case)
    expected = ask(gateway, in_chunks(case))
    batcher = gateway.plane.endpoints.by_name[f"{MODEL}-tensor"].batcher
    assert isinstance(batcher, Batcher)
    before, known = batcher.limits, len(started)
    batcher.limits = replace(before, batch=3)
    try:
        assert ask(gateway, hot(case)) == expected
    finally:
        batcher.limits = before
    assert len(started) == known


def test_json_parts_that_never_come_again_do_not_pile_up(gateway: Serving, started: list[DirectRequest]) -> None:
    for number in range(3 * MOST_PLANS):
        document = sized_tensor(len(RAW), parameters=BINARY_ANSWER, unknown=f"{number:04}")
        head = orjson.dumps(document)
        case = Case(TENSOR, head + RAW, {"inference-header-content-length": str(len(head))})
        assert ask(gateway, hot(case))[0] == 200
    assert not started
    learn(gateway, SAMPLE)
    ask(gateway, hot(SAMPLE))
    assert started


FAULTS = {
    "headers": "serve.http.request_headers.apply_headers",
    "admission": "serve.batching.batcher.Batcher.admit",
    "queueing": "serve.batching.batcher.Batcher.submit",
    "energy": "serve.telemetry.recorder.ModelRecorder.engine_share",
    "logits": "serve.batching.results.BatchRun.raw",
}


def fail(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("secret")


@pytest.mark.parametrize("stage", FAULTS)
def test_a_fault_is_counted_as_it_is_answered(
    gateway: Serving, started: list[DirectRequest], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    learn(gateway, SAMPLE)
    broken: Callable[..., Any] | property = property(fail) if stage == "logits" else fail
    monkeypatch.setattr(FAULTS[stage], broken)
    with counts(gateway, x500=1):
        status, _, body = ask(gateway, hot(SAMPLE))
        assert (status, orjson.loads(body)) == (500, {"error": "internal error; the server's log has it"})
    assert started


def test_a_fault_after_the_answer_does_not_change_its_code(
    gateway: Serving, started: list[DirectRequest], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learn(gateway, SAMPLE)
    monkeypatch.setattr("serve.telemetry.recorder.ModelRecorder.request", fail)
    with caplog.at_level(logging.CRITICAL), counts(gateway, x200=1):
        assert ask(gateway, hot(SAMPLE))[0] == 200
    assert started


def test_an_error_that_cannot_be_sent_is_a_fault(
    gateway: Serving, started: list[DirectRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = DIRECT["a priority that is no number"]
    learn(gateway, case)
    monkeypatch.setattr("serve.http.direct.error_response", fail)
    with counts(gateway, x500=1):
        assert ask(gateway, hot(case))[0] == 500
    assert started


def test_pipelined_requests_are_answered_in_their_order(gateway: Serving, started: list[DirectRequest]) -> None:
    learn(gateway, SAMPLE)
    expected = ask(gateway, hot(SAMPLE))[2]
    with gateway.connect() as client, client.makefile("rb") as stream:
        client.sendall(hot(SAMPLE) * 20)
        for _ in range(20):
            fields = dict(line.split(b": ") for line in iter(stream.readline, b"\r\n") if b": " in line)
            assert stream.read(int(fields[b"content-length"])) == expected
    assert len(started) >= 20


def test_a_client_that_leaves_while_its_rows_wait_is_counted(gateway: Serving, started: list[DirectRequest]) -> None:
    learn(gateway, SAMPLE)
    batcher = gateway.plane.endpoints.by_name[f"{MODEL}-tensor"].batcher
    assert isinstance(batcher, Batcher)
    slots = batcher.slots
    gateway.loop.call_soon_threadsafe(slots.resize, 0, 0)
    try:
        with counts(gateway, x499=1):
            client = gateway.connect()
            client.sendall(hot(SAMPLE))
            until(lambda: gateway.plane.in_flight == 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
    finally:
        gateway.loop.call_soon_threadsafe(slots.resize, 1, 1)
    assert started
    assert ask(gateway, hot(SAMPLE))[0] == 200


def test_a_server_that_stops_says_so(start_gateway: StartGateway, started: list[DirectRequest]) -> None:
    with start_gateway(models=[{"name": MODEL}]) as gateway:
        learn(gateway, SAMPLE)
        expected = ask(gateway, hot(SAMPLE))[2]
        gateway.plane.draining = True
        with gateway.connect() as client, client.makefile("rb") as stream:
            client.sendall(hot(SAMPLE))
            answer = stream.read()
    assert b"connection: close" in answer
    assert answer.endswith(expected)
    assert len(started) == 3


def test_keys_are_checked_with_every_request(start_gateway: StartGateway, started: list[DirectRequest]) -> None:
    key = "convoy_" + "k" * 43
    keys = [{"name": "one", "sha256": hashlib.sha256(key.encode()).hexdigest()}]
    allowed = replace(SAMPLE, headers={**SAMPLE.headers, "authorization": f"Bearer {key}"})
    with start_gateway(models=[{"name": MODEL}], keys=keys) as gateway:
        for _ in range(4):
            assert ask(gateway, hot(allowed))[0] == 200
            assert ask(gateway, hot(SAMPLE))[0] == 401
    assert started
