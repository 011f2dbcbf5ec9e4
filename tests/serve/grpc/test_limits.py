"""Limits of gRPC requests, against both servers: compressed and oversized messages, oversized metadata."""

from __future__ import annotations

import gzip
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from convoy.protos.classifier_pb2 import ClassifyRequest
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from models.artifact import BUNDLED
from tests.serve.listeners import Serving, StartGateway

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
LIMIT = 2**20
BOMB = bytes(32 * LIMIT)  # about a thousandth of that on the wire
BOMBS, BOMB_BYTES = 8, 128 * 2**20
CLASSIFY, CLASSIFY_STREAM = "/convoy.v1.Classifier/Classify", "/convoy.v1.Classifier/ClassifyStream"
HEALTH, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
METHODS: dict[str, tuple[Any, bool]] = {  # a request, and whether the method is a stream
    CLASSIFY: (ClassifyRequest(model="lenet5-mnist", images=[DIGIT]), False),
    CLASSIFY_STREAM: (ClassifyRequest(model="lenet5-mnist", images=[DIGIT]), True),
    HEALTH: (HealthCheckRequest(service="s" * 1000), False),
    WATCH: (HealthCheckRequest(service="s" * 1000), False),
    REFLECTION: (ServerReflectionRequest(file_containing_symbol="s" * 1000), True),
}


@pytest.fixture(params=["native", "grpcio"], scope="module")
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[Serving]:
    limits = {"body_bytes": LIMIT, "header_bytes": 4096}
    with start_gateway(listen={"grpc_server": request.param}, limits=limits) as gateway:
        yield gateway


def refused(gateway: Serving, request: ClassifyRequest, **options: object) -> str:
    """The status code of a refused call; the next call on the channel must succeed."""
    sizes = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://"), sizes) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ClassifierStub(channel).Classify(request, timeout=60, **options)  # type: ignore[no-untyped-call]
        good = ClassifyRequest(model="lenet5-mnist", images=[DIGIT])
        assert ClassifierStub(channel).Classify(good, timeout=60).predictions  # type: ignore[no-untyped-call]
    return str(caught.value.code().name)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_a_compressed_message_is_refused(gateway: Serving, algorithm: grpc.Compression) -> None:
    request = ClassifyRequest(model="lenet5-mnist", images=[BOMB])
    assert refused(gateway, request, compression=algorithm) == "UNIMPLEMENTED"


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_refuses_compression(gateway: Serving, method: str, algorithm: grpc.Compression) -> None:
    request, streams = METHODS[method]
    if method.startswith("/convoy"):
        request = ClassifyRequest(
            model="lenet5-mnist", images=[DIGIT, bytes(1000)]
        )  # clients compress only what shrinks
    coding = (type(request).SerializeToString, bytes)
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        if streams:
            call = channel.stream_stream(method, *coding)(iter([request]), timeout=60, compression=algorithm)
        else:  # a unary response can be read as a stream too
            call = channel.unary_stream(method, *coding)(request, timeout=60, compression=algorithm)
        with pytest.raises(grpc.RpcError):
            next(iter(call))
    assert call.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "compress" in call.details().lower()


def test_a_message_above_the_limit_is_refused(gateway: Serving) -> None:
    assert refused(gateway, ClassifyRequest(model="lenet5-mnist", images=[BOMB])) == "RESOURCE_EXHAUSTED"


def test_a_refused_message_does_not_disturb_a_stream_on_the_same_connection(gateway: Serving) -> None:
    good, bad = METHODS[CLASSIFY][0], ClassifyRequest(model="lenet5-mnist", images=[BOMB])
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://"), [("grpc.max_send_message_length", -1)]) as channel:
        stub = ClassifierStub(channel)  # type: ignore[no-untyped-call]
        stream = stub.ClassifyStream(iter([good]), timeout=60)
        calls = [stub.Classify.future(bad, timeout=60) for _ in range(BOMBS)]
        assert {call.code() for call in calls} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert [answer.predictions[0].classes[0].label for answer in stream] == ["7"]
        late = stub.ClassifyStream(iter([good, bad]), timeout=60)  # after a response has begun
        with pytest.raises(grpc.RpcError) as caught:
            list(late)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


COMPRESSED = {"gzip": gzip.compress(bytes(BOMB_BYTES), 1), "deflate": zlib.compress(bytes(BOMB_BYTES), 1)}


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def request_frames(stream: int, method: str, encoding: str, message: bytes, compressed: int) -> bytes:
    """A call as HTTP/2 frames, with HPACK literals (RFC 7541), so that no client library must compress the message."""
    fields = {
        ":path": method,
        ":authority": "a",
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-encoding": encoding,
    }
    texts = [
        b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    ]
    sent = [frame(1, 4, stream, b"\x83\x86" + b"".join(texts))]
    data = bytes((compressed,)) + len(message).to_bytes(4, "big") + message
    pieces = [data[start : start + 16_384] for start in range(0, len(data), 16_384)]
    return b"".join([*sent, *(frame(0, piece is pieces[-1], stream, piece) for piece in pieces)])


def peak_growth(ask: Callable[[], None]) -> int:
    """Growth of this process's peak memory during `ask`, in bytes."""
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0])
    ask()
    return (int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) - before) * 1024


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("method", METHODS)
def test_many_concurrent_compressed_messages_take_no_memory(gateway: Serving, method: str, encoding: str) -> None:
    bomb = COMPRESSED[encoding]
    streams = [1 + 2 * number for number in range(BOMBS)]
    host, port = gateway.grpc.removeprefix("grpc://").rsplit(":", 1)

    def ask() -> None:
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"\0\4\x7f\xff\xff\xff"))
            for stream in streams:
                client.sendall(request_frames(stream, method, encoding, bomb, 1))
            reader = client.makefile("rb")
            ended: set[int] = set()
            while ended < set(streams):
                head = reader.read(9)
                reader.read(int.from_bytes(head[:3], "big"))
                if head[3] == 3 or (head[3] in (0, 1) and head[4] & 1):
                    ended.add(int.from_bytes(head[5:], "big"))

    assert peak_growth(ask) < BOMB_BYTES // 2


def test_oversized_metadata_is_refused(gateway: Serving) -> None:
    request = ClassifyRequest(model="lenet5-mnist", images=[DIGIT])
    assert refused(gateway, request, metadata=(("x-large", "a" * 100_000),))
