"""Messages whose beginning has come before are answered without a coroutine, with the same answers and counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_grpc import RAW_INPUT_TAG, varint
from serve.api.direct import MOST_PLANS, DirectRequest
from serve.batching.batcher import Batcher
from serve.telemetry.definitions import REQUESTS, Definition
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.serve.grpc.test_servers import TENSORS, infer, rows
from tests.serve.listeners import Serving, StartGateway
from tests.serve.recording import record_started
from tests.waiting import until

METHOD = "/inference.GRPCInferenceService/ModelInfer"
UNKNOWN_TAG = b"\xa2\x06"  # field 100, of bytes
SAMPLE = infer(**rows(1))
RAW = SAMPLE.raw_input_contents[0]


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(listen={"grpc_server": "native"}) as gateway:
        yield gateway


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[DirectRequest]:
    return record_started(monkeypatch)


def send(gateway: Serving, message: bytes, **options: Any) -> bytes:
    """The bytes that answer a message. Raises grpc.RpcError."""
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        response: bytes = channel.unary_unary(METHOD, bytes, bytes)(message, timeout=60, **options)
    return response


def learn(gateway: Serving, message: bytes) -> bytes:
    """Sends a message until it is planned. Returns the first answer, which the general way gives."""
    first = send(gateway, message)
    assert send(gateway, message) == first
    return first


def counted(gateway: Serving, metric: Definition, label: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for key, values in total(read_files(gateway.metrics.folder))[metric.name].items():
        if dict(key)["model"] == TENSORS:
            found[dict(key).get(label, "")] += int(values[0])
    return +found


@pytest.mark.parametrize("count", [1, 3])
def test_a_known_message_gets_the_answer_of_the_general_way(
    gateway: Serving, started: list[DirectRequest], count: int
) -> None:
    request = infer(**rows(count))
    assert learn(gateway, request.SerializeToString()) == send(gateway, request.SerializeToString())
    assert len(started) == 1
    request.raw_input_contents[0] = np.random.default_rng(9).random((count, 1, 32, 32), np.float32).tobytes()
    answer = send(gateway, request.SerializeToString())
    assert len(started) == 2
    request.id = "parsed"
    expected = pb.ModelInferResponse.FromString(send(gateway, request.SerializeToString()))
    assert len(started) == 2
    expected.ClearField("id")
    assert pb.ModelInferResponse.FromString(answer) == expected


def padded(data: bytes) -> bytes:
    """A message with the sample's tensor in its middle, and an unknown field that looks like a tensor at its end."""
    tail = RAW_INPUT_TAG + varint(len(data)) + data
    return SAMPLE.SerializeToString() + UNKNOWN_TAG + varint(len(tail)) + tail


def test_the_end_of_a_message_is_its_tensor_only_if_it_is_parsed_so(
    gateway: Serving, started: list[DirectRequest]
) -> None:
    expected = learn(gateway, padded(RAW))
    for _ in range(3):
        assert send(gateway, padded(RAW)) == expected
        assert send(gateway, padded(bytes(len(RAW)))) == expected
    assert not started


def test_messages_that_never_come_again_do_not_pile_up(gateway: Serving, started: list[DirectRequest]) -> None:
    message = SAMPLE.SerializeToString()
    for number in range(3 * MOST_PLANS):
        send(gateway, UNKNOWN_TAG + b"\x04" + b"%04d" % number + message)
    assert not started
    learn(gateway, message)
    send(gateway, message)
    assert started


def test_a_known_beginning_with_another_end_is_parsed(gateway: Serving, started: list[DirectRequest]) -> None:
    """Two known beginnings of one length, and a message that has the one and the other's length."""
    one, two = (
        infer(name="image", datatype="UINT8", shape=(count, 28, 28, 1), raw=bytes(784 * count)) for count in (1, 2)
    )
    for request in (one, two):
        learn(gateway, request.SerializeToString())
    known = len(started)
    message = two.SerializeToString()[: len(one.SerializeToString())]
    with pytest.raises(grpc.RpcError) as caught:
        send(gateway, message)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert len(started) == known


def test_rows_that_no_longer_fit_into_a_run_are_split(gateway: Serving, started: list[DirectRequest]) -> None:
    request = infer(**rows(4))
    expected = learn(gateway, request.SerializeToString())
    batcher = gateway.plane.endpoints.by_name[TENSORS].batcher
    assert isinstance(batcher, Batcher)
    before, known = batcher.limits, len(started)
    batcher.limits = replace(before, batch=3)
    try:
        assert pb.ModelInferResponse.FromString(send(gateway, request.SerializeToString())).outputs == (
            pb.ModelInferResponse.FromString(expected).outputs
        )
    finally:
        batcher.limits = before
    assert len(started) == known


def test_refused_messages_are_not_learned(gateway: Serving, started: list[DirectRequest]) -> None:
    message = infer(**{**rows(1), "model": "no"}).SerializeToString()
    for _ in range(4):
        with pytest.raises(grpc.RpcError, match="no"):
            send(gateway, message)
    assert not started


FAULTS = {
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
    message = SAMPLE.SerializeToString()
    learn(gateway, message)
    before = counted(gateway, REQUESTS, "code")
    broken: Callable[..., Any] | property = property(fail) if stage == "logits" else fail
    monkeypatch.setattr(FAULTS[stage], broken)
    with pytest.raises(grpc.RpcError) as caught:
        send(gateway, message)
    assert (caught.value.code().name, caught.value.details()) == (
        "INTERNAL",
        "internal error; the server's log has it",
    )
    until(lambda: counted(gateway, REQUESTS, "code") - before >= Counter({"INTERNAL": 1}))
    assert started


def test_keys_are_checked_with_every_message(start_gateway: StartGateway, started: list[DirectRequest]) -> None:
    key = "convoy_" + "k" * 43
    keys = [{"name": "one", "sha256": hashlib.sha256(key.encode()).hexdigest()}]
    with start_gateway(listen={"grpc_server": "native"}, keys=keys) as gateway:
        message, metadata = SAMPLE.SerializeToString(), (("authorization", f"Bearer {key}"),)
        for _ in range(3):
            send(gateway, message, metadata=metadata)
        assert started
        with pytest.raises(grpc.RpcError) as caught:
            send(gateway, message)
        assert caught.value.code().name == "UNAUTHENTICATED"
