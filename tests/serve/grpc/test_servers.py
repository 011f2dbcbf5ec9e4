"""Both gRPC servers answer, refuse and count calls in the same way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from models.artifact import BUNDLED
from serve.telemetry.definitions import CANCELLED, REQUESTS, SHED, Definition
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.serve.listeners import Serving, StartGateway
from tests.waiting import until

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
MODEL = "lenet5-mnist"
TENSORS = f"{MODEL}-tensor"


@pytest.fixture(scope="module")
def servers(start_gateway: StartGateway) -> Iterator[dict[str, Serving]]:
    with (
        start_gateway(listen={"grpc_server": "native"}) as native,
        start_gateway(listen={"grpc_server": "grpcio"}) as grpcio,
    ):
        yield {"native": native, "grpcio": grpcio}


@pytest.fixture(params=["native", "grpcio"])
def gateway(request: pytest.FixtureRequest, servers: dict[str, Serving]) -> Serving:
    return servers[request.param]


@contextmanager
def stubs(gateway: Serving) -> Iterator[tuple[Any, Any]]:
    """Stubs of Classifier and GRPCInferenceService."""
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        yield ClassifierStub(channel), GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]


def classify(**fields: Any) -> classifier_pb2.ClassifyRequest:
    return classifier_pb2.ClassifyRequest(**{"model": MODEL, "images": [DIGIT], **fields})


def infer(
    name: str = "image",
    datatype: str = "BYTES",
    shape: tuple[int, ...] = (1,),
    raw: bytes | None = None,
    model: str = MODEL,
    **fields: Any,
) -> open_inference_pb2.ModelInferRequest:
    request = open_inference_pb2.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(element(DIGIT) if raw is None else raw)
    return request


def element(image: bytes) -> bytes:
    return len(image).to_bytes(4, "little") + image


def rows(count: int, shape: tuple[int, ...] = (1, 32, 32)) -> dict[str, Any]:
    """A request's tensor of numbers, for the model without preprocessing."""
    data = np.random.default_rng(count).random((count, *shape), np.float32)
    return {
        "model": TENSORS,
        "name": "input",
        "datatype": "FP32",
        "shape": data.shape,
        "raw": data.tobytes(),
    }


def with_options(**options: Any) -> open_inference_pb2.ModelInferRequest:
    request = infer(**options.pop("tensor", {}))
    for key, value in options.items():
        request.parameters[key].int64_param = value
    return request


def requesting(output: str, classes: int = 0) -> open_inference_pb2.ModelInferRequest:
    request = infer()
    added = request.outputs.add(name=output)
    if classes:
        added.parameters["classification"].int64_param = classes
    return request


def with_typed_contents() -> open_inference_pb2.ModelInferRequest:
    request = infer()
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.append(DIGIT)
    return request


def both_contents() -> open_inference_pb2.ModelInferRequest:
    request = infer()
    request.inputs[0].contents.bytes_contents.append(DIGIT)
    return request


REQUESTS_TO_COMPARE = {
    "an image": infer(),
    "an image [1, 1]": infer(shape=(1, 1)),
    "an id": infer(id="mine" * 50),
    "a version": infer(model_version="1"),
    "no such version": infer(model_version="9"),
    "two images": infer(shape=(2,), raw=element(DIGIT) * 2),
    "a rank too many": infer(shape=(1, 1, 1)),
    "no image": infer(shape=(0,), raw=b""),
    "an empty image": infer(raw=element(b"")),
    "a truncated image": infer(raw=element(DIGIT)[:-1]),
    "bytes behind the image": infer(raw=element(DIGIT) + b"x"),
    "three bytes": infer(raw=b"abc"),
    "not an image": infer(raw=element(b"not an image")),
    "pixels": infer(datatype="UINT8", shape=(1, 28, 28, 1), raw=bytes(784)),
    "typed contents": with_typed_contents(),
    "both contents": both_contents(),
    "an unknown name": infer(name="no"),
    "an unknown type": infer(datatype="FP99"),
    "an unknown model": infer(model="no"),
    "an output": requesting("logits"),
    "classes": requesting("logits", 2),
    "an unknown output": requesting("no"),
    "a priority": with_options(priority=1),
    "a bad priority": with_options(priority=-1),
    "no tensor": open_inference_pb2.ModelInferRequest(model_name=MODEL),
    "a row": infer(**rows(1)),
    "three rows": infer(**rows(3)),
    "no row": infer(**rows(0)),
    "more rows than a batch": infer(**rows(64)),
    "too many rows": infer(**rows(1000)),
    "another shape": infer(**rows(1, (32, 32, 1))),
    "a missing byte": infer(**{**rows(1), "raw": bytes(4095)}),
    "another type": infer(**{**rows(1), "datatype": "FP64"}),
    "an image for tensors": infer(model=TENSORS, name="input"),
    "a negative size": infer(**{**rows(1), "shape": (-1, 1, 32, 32)}),
    "a huge size": infer(**{**rows(1), "shape": (2**62, 1, 32, 32)}),
}
ANSWERED = {
    *(
        "an image",
        "an image [1, 1]",
        "an id",
        "a version",
        "two images",
        "pixels",
        "typed contents",
        "an output",
        "classes",
    ),
    *("a priority", "a row", "three rows", "more rows than a batch"),
}
CLASSIFICATIONS_TO_COMPARE = {
    "an image": classify(id="mine"),
    "two images": classify(images=[DIGIT, DIGIT], id="mine"),
    "options": classify(top_k=2, threshold=0.5, indices_only=True, id="mine"),
    "many classes": classify(top_k=10, id="mine"),
    "energy": classify(energy=True, id="mine"),
    "no image": classify(images=[]),
    "not an image": classify(images=[b"not an image"]),
    "a bad id": classify(id="é"),
    "a bad threshold": classify(threshold=2),
    "an unknown model": classify(model="no"),
    "an unknown version": classify(version="9"),
}


REPEATS = 3  # the native server answers known messages in another way


def outcome(method: Callable[..., Any], request: Any) -> Any:
    """The response, without what differs from run to run, or the status."""
    try:
        response = method(request, timeout=60)
    except grpc.RpcError as error:
        return error.code(), error.details(), "retry-after" in str(error.trailing_metadata())
    if isinstance(response, classifier_pb2.ClassifyResponse):
        assert response.timings_ms.total > 0
        for field in ("timings_ms", "energy_mj", "batch_size"):
            response.ClearField(field)
    return response


@pytest.mark.parametrize("request_name", REQUESTS_TO_COMPARE)
def test_both_servers_infer_alike(servers: dict[str, Serving], request_name: str) -> None:
    outcomes = []
    for gateway in servers.values():
        with stubs(gateway) as (_, inference):
            request = REQUESTS_TO_COMPARE[request_name]
            outcomes += [outcome(inference.ModelInfer, request) for _ in range(REPEATS)]
    assert all(other == outcomes[0] for other in outcomes)
    answered = isinstance(outcomes[0], open_inference_pb2.ModelInferResponse)
    assert answered == (request_name in ANSWERED), outcomes[0]


@pytest.mark.parametrize("request_name", CLASSIFICATIONS_TO_COMPARE)
def test_both_servers_classify_alike(servers: dict[str, Serving], request_name: str) -> None:
    outcomes = []
    for gateway in servers.values():
        with stubs(gateway) as (classifier, _):
            outcomes.append(outcome(classifier.Classify, CLASSIFICATIONS_TO_COMPARE[request_name]))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("method", ["Classify", "ModelInfer"])
def test_garbage_is_an_invalid_argument(gateway: Serving, method: str) -> None:
    service = "convoy.v1.Classifier" if method == "Classify" else "inference.GRPCInferenceService"
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{service}/{method}", bytes, bytes)(b"\xff" * 10, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def counted(gateway: Serving, metric: Definition, label: str, model: str = MODEL) -> Counter[str]:
    """A metric of a model, by the values of a label."""
    rows = total(read_files(gateway.metrics.folder))[metric.name]
    counts: Counter[str] = Counter()
    for key, row in rows.items():
        labels = dict(key)
        if labels.get("model") == model:
            counts[labels.get(label, "")] += int(row[0])
    return +counts


@contextmanager
def busy_engine(gateway: Serving) -> Iterator[None]:
    """All permits of the model's engine are taken, so that requests wait."""
    slots: Any = gateway.plane.endpoints.by_name[MODEL].batcher.slots  # type: ignore[attr-defined]

    async def take() -> int:
        taken = 0
        while slots.take(full=True):
            taken += 1
        return taken

    async def give_back(count: int) -> None:
        for _ in range(count):
            slots.give_back()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, gateway.loop).result(60)

    with stubs(gateway) as (classifier, _):
        classifier.Classify(classify(), timeout=60)  # loads the engine
    taken = until(lambda: run(take()))
    try:
        yield
    finally:
        run(give_back(taken))


@pytest.mark.parametrize("kind", ["Classify", "an image", "a known tensor"])
@pytest.mark.parametrize("late", [False, True])
def test_a_call_that_waits_ends_with_its_client_or_its_deadline(gateway: Serving, kind: str, late: bool) -> None:
    requests = {"Classify": classify(), "an image": infer(), "a known tensor": infer(**rows(1))}
    request, model = requests[kind], TENSORS if kind == "a known tensor" else MODEL
    code = "DEADLINE_EXCEEDED" if late else "CANCELLED"

    def counts() -> tuple[Counter[str], Counter[str], Counter[str]]:
        asked = ((REQUESTS, "code"), (SHED, "reason"), (CANCELLED, ""))
        found = [counted(gateway, metric, label, model) for metric, label in asked]
        return found[0], found[1], found[2]

    with stubs(gateway) as (_, inference):
        for _ in range(REPEATS):
            inference.ModelInfer(requests["a known tensor"], timeout=60)
        until(lambda: gateway.plane.in_flight == 0)
    with busy_engine(gateway), stubs(gateway) as (classifier, inference):
        before = counts()
        stub = classifier.Classify if kind == "Classify" else inference.ModelInfer
        # Only the server counts these 2 s: a client that counts them too may cancel the call first.
        call = stub.future(request, metadata=(("grpc-timeout", "2S"),) if late else None)
        until(lambda: gateway.plane.in_flight == 1)
        if not late:
            call.cancel()
        with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
            call.result()
        assert call.code().name == code
        until(lambda: gateway.plane.in_flight == 0)
        until(lambda: counts()[0] - before[0] == {code: 1})
        shed, cancelled = counts()[1] - before[1], counts()[2] - before[2]
        assert (shed, cancelled) == (({"deadline": 1}, {}) if late else ({}, {"": 1}))
    with stubs(gateway) as (classifier, _):
        assert classifier.Classify(classify(), timeout=60).predictions


def test_health_and_streams_are_answered_beside_hot_calls(gateway: Serving) -> None:
    with stubs(gateway) as (classifier, inference):
        assert inference.ServerLive(open_inference_pb2.ServerLiveRequest(), timeout=60).live
        assert [answer.id for answer in classifier.ClassifyStream(iter([classify(id="1"), classify(id="2")]))] == [
            "1",
            "2",
        ]
        (streamed,) = inference.ModelStreamInfer(iter([infer(model="no")]), timeout=60)
        assert "no" in streamed.error_message
