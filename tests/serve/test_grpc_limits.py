"""What a gRPC client may send, against both servers: a message that inflates, metadata without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from convoy.protos.classifier_pb2 import ClassifyRequest
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from models.artifact import BUNDLED
from serve.config import parse_settings
from tests.serve.listeners import Serving, serving

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
LIMIT = 2**20
BOMB = bytes(32 * LIMIT)  # a thousandth of that on the wire


@pytest.fixture(params=["native", "grpcio"], scope="module")
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]
) -> Iterator[Serving]:
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    settings = {
        "listen": ports | {"grpc_server": request.param},
        "limits": {"body_bytes": LIMIT, "header_bytes": 4096},
        "runtime_dir": str(tmp_path_factory.mktemp("grpc")),
        "models": [{"name": "lenet5-mnist"}],
    }
    with serving(parse_settings(settings)) as one:
        yield one


def refused(gateway: Serving, request: ClassifyRequest, **options: object) -> str:
    """The code with which a call ends; the next one is answered."""
    sizes = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://"), sizes) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ClassifierStub(channel).Classify(request, timeout=60, **options)  # type: ignore[no-untyped-call]
        good = ClassifyRequest(model="lenet5-mnist", images=[DIGIT])
        assert ClassifierStub(channel).Classify(good, timeout=60).predictions  # type: ignore[no-untyped-call]
    return str(caught.value.code().name)


def test_a_message_that_inflates_is_refused(gateway: Serving) -> None:
    request = ClassifyRequest(model="lenet5-mnist", images=[BOMB])
    assert refused(gateway, request, compression=grpc.Compression.Gzip) in {"RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}


def test_metadata_without_end_is_refused(gateway: Serving) -> None:
    request = ClassifyRequest(model="lenet5-mnist", images=[DIGIT])
    assert refused(gateway, request, metadata=(("x-large", "a" * 100_000),))
