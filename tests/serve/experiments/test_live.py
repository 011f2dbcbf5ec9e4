"""Gateways without Ray: real engines behind experiments, two gateways on one ledger, restarts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from PIL import Image
from sqlalchemy import func, select

from convoy.protos import classifier_pb2 as classifier_pb
from convoy.protos import experiments_pb2 as experiments_pb
from convoy.protos import open_inference_pb2 as inference_pb
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.experiments_pb2_grpc import ExperimentsStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from models.artifact import Artifact
from serve.catalog import CatalogLoader, Endpoints
from serve.config import Catalog, LedgerConfig, Limits, Listen, ModelConfig, Settings
from serve.dataplane import DataPlane
from serve.executors import Executor, load_local
from serve.experiments.definition import Experiment
from serve.experiments.gateway import Experiments
from serve.experiments.ledger.schema import predictions
from serve.experiments.ledger.store import Ledger
from serve.experiments.referee import Referee
from serve.grpc_listener import GrpcListener
from serve.http_listener import HttpApp
from serve.http_pages import build_pages
from serve.metric_pages import PageWriter
from serve.metrics import BUSY, Metrics
from tests.artifacts import quadrant_image, write_artifact

FLUSH = LedgerConfig(flush_seconds=0.01)


def png(bright: int, value: int = 200) -> bytes:
    file = io.BytesIO()
    Image.fromarray(quadrant_image(bright, value)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelConfig, ...]:
    folder = tmp_path_factory.mktemp("models")
    good = write_artifact(folder / "good", "good")
    faulty = write_artifact(folder / "faulty", "faulty", faulty=True)
    return (
        ModelConfig(name="a", artifact=str(good), max_batch=4),
        ModelConfig(name="b", artifact=str(good), max_batch=4),
        ModelConfig(name="faulty", artifact=str(faulty), max_batch=4),
    )


def define(name: str, first: str = "a", second: str = "b", **rest: Any) -> Experiment:
    arms = [{"name": "one", "model": first}, {"name": "two", "model": second}]
    return Experiment.model_validate({"name": name, "arms": arms} | rest)


Gateway = Callable[..., Any]


@pytest.fixture
def gateway(models: tuple[ModelConfig, ...], ledger_url: str, tmp_path: Path) -> Gateway:
    """Opens a gateway's data plane on the ledger: (HTTP client, its experiments)."""
    metrics = Metrics(PageWriter(tmp_path / "metrics"))

    @asynccontextmanager
    async def open_gateway(*definitions: Experiment) -> Any:
        async def connect(model: ModelConfig, artifact: Artifact) -> Executor:
            busy = metrics.values(BUSY, model=model.name, version=model.version)
            return await asyncio.to_thread(load_local, model, artifact, 1, busy)

        plane = DataPlane(Limits(), ThreadPoolExecutor(1))
        experiments = Experiments(plane, metrics, Ledger(ledger_url), FLUSH, asyncio.Lock())
        endpoints = await CatalogLoader(connect, metrics, Limits()).load(Catalog(models=models), Endpoints())
        plane.replace(await experiments.declare(definitions, endpoints))
        app = HttpApp(plane, metrics, build_pages(plane, Settings(models=models), experiments))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client, experiments
        await experiments.close()

    return open_gateway


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 120))


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    while not await true():  # noqa: ASYNC110 what comes true is in other threads and processes
        await asyncio.sleep(0.02)


async def arm(client: httpx.AsyncClient, name: str, user: str = "", bright: int = 0, **query: Any) -> str:
    headers = {"x-user": user} if user else {}
    answer = await client.post(f"/v1/models/{name}/classify", content=png(bright), headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["arm"] == answer.headers["x-convoy-arm"]
    return str(answer.json()["arm"])


def test_keys_stick_over_two_gateways_and_restarts(gateway: Gateway) -> None:
    users = [f"user-{number}" for number in range(40)]
    definition = define("sticky", sticky="header:x-user")

    async def test() -> None:
        async with gateway(definition) as (first, _), gateway(definition) as (second, _):
            before = [await arm(first, "sticky", user) for user in users]
            assert [await arm(second, "sticky", user) for user in users] == before
            assert set(before) == {"one", "two"}
        async with gateway(definition) as (third, _):
            assert [await arm(third, "sticky", user) for user in users] == before

    run(test())


def test_every_gateway_follows_a_decision_and_keeps_it_after_a_redeploy(gateway: Gateway, ledger_url: str) -> None:
    definition = define("decided")

    async def test() -> None:
        referee = Referee(Ledger(ledger_url), lambda model: None)
        async with gateway(definition) as (first, _), gateway(definition) as (second, _):
            await asyncio.to_thread(referee.promote, "decided", "two")
            for client in (first, second):

                async def follows(client: httpx.AsyncClient = client) -> bool:
                    return {await arm(client, "decided") for _ in range(8)} == {"two"}

                await until(follows)
        async with gateway(definition) as (again, _):
            assert {await arm(again, "decided") for _ in range(8)} == {"two"}

    run(test())


def test_what_was_sent_is_what_the_report_counts(gateway: Gateway, ledger_url: str) -> None:
    """Known truth: the arm that always errs is told apart from the one that never does."""

    async def test() -> None:
        referee = Referee(Ledger(ledger_url), lambda model: None)
        async with gateway(define("counted", mode="paired")) as (client, _):
            for number in range(60):
                await arm(client, "counted", bright=number % 4, id=f"n{number}")
            items = [{"id": f"n{number}", "label": number % 4} for number in range(60)]
            answer = await client.post("/v1/feedback", json={"feedback": items})
            assert (answer.status_code, answer.json()) == (202, {"accepted": 60})
        report = referee.report("counted")
        dropped = report.arms[1].dropped_copies
        assert report.arms[0].metric.value == 1.0
        assert report.comparisons[0].samples == 60 - dropped
        assert report.comparisons[0].agreement is not None
        assert report.comparisons[0].agreement.value == 1.0

    run(test())


def test_failures_are_the_arms_and_bad_input_is_nobodys(gateway: Gateway, ledger_url: str) -> None:
    async def test() -> None:
        referee = Referee(Ledger(ledger_url), lambda model: None)
        async with gateway(define("failing", second="faulty")) as (client, _):
            for number in range(20):
                await client.post("/v1/models/failing/classify", content=png(0, 255), params={"id": f"p{number}"})
            refused = await client.post("/v1/models/failing/classify", content=b"not an image")
            assert refused.status_code == 400
            too_long = await client.post("/v1/models/failing/classify", content=png(0), params={"id": "x" * 200})
            assert too_long.status_code == 400
        good, bad = referee.report("failing").arms
        assert (good.failures, bad.answers) == (0, 0)
        assert good.answers + bad.failures == 20

    run(test())


def test_an_experiment_over_unknown_or_unlike_models_is_refused(gateway: Gateway) -> None:
    async def test() -> None:
        async with gateway() as (client, _):
            wrong = define("wrong", second="nowhere").model_dump(mode="json")
            answer = await client.post("/v1/experiments", json=wrong)
            assert (answer.status_code, "nowhere" in answer.json()["error"]) == (400, True)
            assert (await client.post("/v1/models/wrong/classify", content=png(0))).status_code == 404
            assert (await client.get("/v1/experiments")).json() == {"experiments": []}

    run(test())


def test_both_protocols_give_a_key_the_same_arm(gateway: Gateway, free_ports: Callable[[int], list[int]]) -> None:
    http_port, grpc_port, metrics_port = free_ports(3)
    listen = Listen(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)

    async def test() -> None:
        async with gateway(define("both", sticky="header:x-user")) as (client, experiments):
            listener = GrpcListener(experiments._plane, experiments._metrics, Settings(listen=listen), experiments)
            await listener.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                for user in (f"user-{number}" for number in range(8)):
                    wanted = await arm(client, "both", user, id=f"http-{user}")
                    await check_grpc(channel, user, wanted)
                    raw = {"x-user": user, "inference-header-content-length": "0"}
                    infer = await client.post("/v2/models/both/infer", content=png(2), headers=raw)
                    assert (infer.status_code, infer.headers["x-convoy-arm"]) == (200, wanted)
                stub = ExperimentsStub(channel)  # type: ignore[no-untyped-call]
                item = {"id": "http-user-0", "label": "top left"}
                assert (await stub.SendFeedback(experiments_pb.FeedbackRequest(feedback=[item]))).accepted == 1
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.SendFeedback(experiments_pb.FeedbackRequest(feedback=[{"id": "x"}]))
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            await listener.stop(1)

    run(test())


async def check_grpc(channel: grpc.aio.Channel, user: str, wanted: str) -> None:
    metadata = (("x-user", user),)
    classify = ClassifierStub(channel).Classify(  # type: ignore[no-untyped-call]
        classifier_pb.ClassifyRequest(model="both", images=[png(1)]), metadata=metadata
    )
    answer = await classify
    assert (answer.model, answer.predictions[0].classes[0].label) == ("both", "top right")
    assert dict(await classify.trailing_metadata())["x-convoy-arm"] == wanted
    tensor = inference_pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(png(3))
    request = inference_pb.ModelInferRequest(model_name="both", inputs=[tensor], id=f"oip-{user}")
    infer = GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata)  # type: ignore[no-untyped-call]
    assert (await infer).model_name == "both"
    trailing = dict(await infer.trailing_metadata())
    assert (trailing["x-convoy-arm"], trailing["x-convoy-request-id"]) == (wanted, f"oip-{user}")


def test_a_removed_declaration_is_no_name_any_more(gateway: Gateway) -> None:
    async def test() -> None:
        async with gateway(define("gone")) as (client, _):
            await arm(client, "gone")
        async with gateway() as (client, _):
            assert (await client.post("/v1/models/gone/classify", content=png(0))).status_code == 404

    run(test())


def test_a_retried_request_is_one_row(gateway: Gateway, ledger: Ledger) -> None:
    async def test() -> None:
        async with gateway(define("retried")) as (client, _):
            arms = {await arm(client, "retried", id="same") for _ in range(5)}
            assert len(arms) == 1

    run(test())
    with ledger.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(predictions)).scalar_one() == 1
