"""Experiments in gateways without Ray: real engines, two gateways on one ledger, restarts."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest
from PIL import Image
from sqlalchemy import func, select

from convoy.protos import classifier_pb2 as classifier_pb
from convoy.protos import experiments_pb2 as experiments_pb
from convoy.protos import open_inference_pb2 as inference_pb
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.experiments_pb2_grpc import ExperimentsStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.config.ensembles import EnsembleConfig, MemberConfig
from serve.config.experiments import Experiment
from serve.config.schema import LedgerConfig, Listen, ModelConfig, Settings
from serve.experiments.controller import ExperimentController
from serve.experiments.ledger.schema import decisions, predictions
from serve.experiments.ledger.store import Ledger
from serve.experiments.runtime import COPIES
from serve.experiments.stats.bernoulli import proportion
from serve.gateway.revisions import Revisions
from serve.telemetry.definitions import ENGINE_SHARE
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.artifacts import quadrant_image, write_artifact
from tests.serve.listeners import InProcess, admin_headers

# The documented limit is one second, which benchmarks.ab_follow measures; test machines have other load.
FOLLOWED_SECONDS = 10.0


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


def define(name: str, first: str = "a", second: str = "b", **options: Any) -> Experiment:
    arms = [{"name": "one", "model": first}, {"name": "two", "model": second}]
    return Experiment.model_validate({"name": name, "arms": arms} | options)


Gateway = Callable[..., Any]


@pytest.fixture
def gateway(
    models: tuple[ModelConfig, ...], ledger_url: str, tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> Gateway:
    """Opens a gateway on the ledger; the context gives an HTTP client and the gateway."""
    numbers = itertools.count()

    @asynccontextmanager
    async def open_gateway(
        *definitions: Experiment, ensembles: tuple[EnsembleConfig, ...] = (), more: tuple[ModelConfig, ...] = ()
    ) -> Any:
        ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
        settings = Settings(
            listen=Listen(**ports),
            runtime_dir=str(tmp_path / f"gateway-{next(numbers)}"),
            models=models + more,
            ensembles=ensembles,
            experiments=definitions,
            ledger=LedgerConfig(url=ledger_url, flush_seconds=0.01),
        )
        opened = InProcess(settings, Revisions(), "gateway")
        await opened.open()
        try:
            url = f"http://127.0.0.1:{ports['http_port']}"
            async with httpx.AsyncClient(base_url=url, headers=admin_headers(settings)) as client:
                yield client, opened
        finally:
            await opened.close()

    return open_gateway


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 120))


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    while not await condition():  # noqa: ASYNC110 other threads and processes make it true
        await asyncio.sleep(0.02)


async def arm(client: httpx.AsyncClient, name: str, user: str = "", bright: int = 0, **query: Any) -> str:
    headers = {"x-user": user} if user else {}
    answer = await client.post(f"/v1/models/{name}/classify", content=png(bright), headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["arm"] == answer.headers["x-convoy-arm"]
    return str(answer.json()["arm"])


def test_a_key_has_the_same_arm_in_two_gateways_and_after_restarts(gateway: Gateway) -> None:
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


async def seconds_until_followed(ledger: Ledger, clients: Iterable[httpx.AsyncClient], wanted: str) -> float:
    """Seconds from the newest decision in the ledger until every gateway answers a request with the `wanted` arm."""
    for client in clients:

        async def follows(client: httpx.AsyncClient = client) -> bool:
            return await arm(client, "decided", id="probe") == wanted

        await until(follows)
    with ledger.engine.connect() as connection:
        return time.time() - float(connection.execute(select(func.max(decisions.c.at))).scalar_one())


def test_every_gateway_follows_a_decision_and_keeps_it_after_a_redeploy(gateway: Gateway, ledger: Ledger) -> None:
    definition = define("decided")

    async def test() -> None:
        controller = ExperimentController(ledger, lambda: "")
        async with gateway(definition) as (first, _), gateway(definition) as (second, _):
            for decided in ("two", "one", "two"):
                await asyncio.to_thread(controller.promote, "decided", decided)
                assert await seconds_until_followed(ledger, (first, second), decided) < FOLLOWED_SECONDS
        async with gateway(definition) as (first, _), gateway(definition) as (second, _):
            assert {await arm(client, "decided") for client in (first, second) for _ in range(8)} == {"two"}
            await asyncio.to_thread(controller.promote, "decided", "one")
            assert await seconds_until_followed(ledger, (first, second), "one") < FOLLOWED_SECONDS

    run(test())


def test_the_report_counts_every_request(gateway: Gateway, ledger: Ledger) -> None:
    """Both arms are always right, so that every figure of the report is known."""

    async def test() -> None:
        controller = ExperimentController(ledger, lambda: "")
        async with gateway(define("counted", mode="paired")) as (client, _):
            for number in range(60):
                await arm(client, "counted", bright=number % 4, id=f"n{number}")
            items = [{"id": f"n{number}", "label": number % 4} for number in range(60)]
            answer = await client.post("/v1/feedback", json={"feedback": items})
            assert (answer.status_code, answer.json()) == (202, {"accepted": 60})
        report = controller.report("counted")
        dropped = report.arms[1].dropped_copies
        assert report.arms[0].metric.value == 1.0
        assert report.comparisons[0].samples == 60 - dropped
        assert report.comparisons[0].agreement is not None
        assert report.comparisons[0].agreement.value == 1.0

    run(test())


@pytest.mark.parametrize("sticky", ["request", "header:x-user"])
def test_images_of_a_request_count_as_one_unit(gateway: Gateway, ledger: Ledger, sticky: str) -> None:
    """24 requests of 4 images each, from 6 users: over HTTP, into the ledger, and into the report."""

    async def test() -> None:
        async with gateway(define("several", sticky=sticky)) as (client, _):
            items = []
            for number in range(24):
                images = [base64.b64encode(png(place)).decode() for place in range(4)]
                answer = await client.post(
                    "/v1/models/several/classify",
                    json={"images": images},
                    params={"id": f"n{number}"},
                    headers={"x-user": f"user-{number % 6}"},
                )
                assert (answer.status_code, len(answer.json()["predictions"])) == (200, 4), answer.text
                wrong = int(number % 3 == 0)
                items += [{"id": f"n{number}", "position": at, "label": (at + wrong) % 4} for at in range(4)]
            accepted = await client.post("/v1/feedback", json={"feedback": items})
            assert accepted.json() == {"accepted": 96}

    run(test())
    report = ExperimentController(ledger, lambda: "").report("several")
    assert sum(arm.samples for arm in report.arms) == 96
    assert sum(arm.units for arm in report.arms) == (24 if sticky == "request" else 6)
    assert sum(arm.answers for arm in report.arms) == 24
    for arm in report.arms:
        if sticky == "request":  # all images of a request are right, or all are wrong
            right = round((arm.metric.value or 0.0) * arm.units)
            alone = proportion(np.array(float(right)), np.array(float(arm.units)), 0.025)
            assert arm.metric.high - arm.metric.low > 0.95 * float(alone.high - alone.low)


def test_a_stopped_arm_stays_stopped_after_restarts_and_changes_of_its_declaration(
    gateway: Gateway, ledger: Ledger
) -> None:
    async def test() -> None:
        controller = ExperimentController(ledger, lambda: "")
        async with gateway(define("halted", second="faulty", mode="bandit")) as (client, _):
            await asyncio.to_thread(controller.stop, "halted", "two")

            async def stopped() -> bool:
                return bool((await client.get("/v1/experiments/halted")).json()["stopped"] == ["two"])

            await until(stopped)
            assert {await arm(client, "halted") for _ in range(8)} == {"one"}
        changed = define("halted", second="faulty", effect=0.03)
        async with gateway(changed) as (first, _), gateway(changed) as (second, _):
            assert {await arm(client, "halted") for client in (first, second) for _ in range(8)} == {"one"}
            state = (await first.get("/v1/experiments/halted")).json()
            assert (state["revision"], state["state"], state["stopped"]) == (2, "stopped", ["two"])

    run(test())


def test_a_stopped_arm_gets_no_copies(gateway: Gateway, ledger: Ledger) -> None:
    arms = [{"name": name, "model": model} for name, model in (("one", "a"), ("two", "b"), ("three", "b"))]
    definition = Experiment.model_validate({"name": "fewer", "mode": "paired", "arms": arms})

    async def test() -> None:
        controller = ExperimentController(ledger, lambda: "")
        async with gateway(definition) as (client, _):
            await asyncio.to_thread(controller.stop, "fewer", "two")

            async def stopped() -> bool:
                return bool((await client.get("/v1/experiments/fewer")).json()["stopped"] == ["two"])

            await until(stopped)
            for number in range(8):
                assert await arm(client, "fewer", bright=number % 4) == "one"

    run(test())
    first, second, third = ExperimentController(ledger, lambda: "").report("fewer").arms
    assert (first.answers, second.answers + second.dropped_copies) == (8, 0)
    assert third.answers + third.dropped_copies == 8


def test_engine_failures_count_against_their_arm_and_invalid_requests_against_none(
    gateway: Gateway, ledger: Ledger
) -> None:
    async def test() -> None:
        controller = ExperimentController(ledger, lambda: "")
        async with gateway(define("failing", second="faulty")) as (client, _):
            for number in range(20):
                await client.post("/v1/models/failing/classify", content=png(0, 255), params={"id": f"p{number}"})
            refused = await client.post("/v1/models/failing/classify", content=b"not an image")
            assert refused.status_code == 400
            too_long = await client.post("/v1/models/failing/classify", content=png(0), params={"id": "x" * 200})
            assert too_long.status_code == 400
        good, bad = controller.report("failing").arms
        assert (good.failures, bad.answers) == (0, 0)
        assert good.answers + bad.failures == 20

    run(test())


def test_an_unexpected_exception_is_a_failure_of_its_arm(
    gateway: Gateway, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with gateway(define("broken"), define("copied", mode="paired")) as (client, server):
            classify = server.plane.classify

            async def fail_in_b(endpoint: Any, *arguments: Any, **options: Any) -> Any:
                if endpoint.name == "b":
                    raise RuntimeError("secret")
                return await classify(endpoint, *arguments, **options)

            monkeypatch.setattr(server.plane, "classify", fail_in_b)
            for name in ("broken", "copied"):
                for number in range(20):
                    query = {"id": f"{name}{number}"}
                    answer = await client.post(f"/v1/models/{name}/classify", content=png(0), params=query)
                    assert answer.status_code in (200, 500)

    run(test())
    for name in ("broken", "copied"):
        good, bad = ExperimentController(ledger, lambda: "").report(name).arms
        assert (good.failures, bad.answers) == (0, 0)
        assert bad.failures > 0
        assert good.answers + bad.failures == 20 or name == "copied"


@pytest.mark.parametrize("key", [[0], {"a": 0}, b"[" * 1000 + b"]" * 1000])
def test_a_key_that_is_not_a_string_is_refused(gateway: Gateway, key: Any) -> None:
    async def test() -> None:
        async with gateway(define("sticky", sticky="field:user")) as (client, _):
            user = key if isinstance(key, bytes) else orjson.dumps(key)
            body = b'{"images": ["%s"], "user": %s}' % (b64encode(png(0)), user)
            headers = {"content-type": "application/json"}
            answer = await client.post("/v1/models/sticky/classify", content=body, headers=headers)
            assert (answer.status_code, "user" in answer.json()["error"]) == (400, True)

    run(test())


def test_copies_for_an_arm_with_a_long_queue_are_dropped_and_delay_no_answer(
    gateway: Gateway, ledger: Ledger, tmp_path: Path
) -> None:
    loops = 25_000  # about 40 ms a run
    slow = ModelConfig(name="slow", artifact=str(write_artifact(tmp_path / "slow", "slow", loops=loops)), max_batch=1)

    async def test() -> None:
        async with gateway(define("shed", second="slow", mode="shadow", percent=100), more=(slow,)) as (client, _):
            requests = [arm(client, "shed", bright=number % 4, id=f"n{number}") for number in range(100)]
            assert set(await asyncio.gather(*requests)) == {"one"}

    run(test())
    control, copied = ExperimentController(ledger, lambda: "").report("shed").arms
    assert (control.answers, control.failures) == (100, 0)
    assert copied.answers > 0
    assert copied.dropped_copies >= 100 - COPIES
    assert (copied.answers + copied.dropped_copies, copied.failures) == (100, 0)


def test_an_experiment_with_an_unknown_model_is_refused(gateway: Gateway) -> None:
    async def test() -> None:
        async with gateway() as (client, _):
            wrong = define("wrong", second="nowhere").model_dump(mode="json")
            answer = await client.post("/v1/experiments", json=wrong)
            assert (answer.status_code, "nowhere" in answer.json()["error"]) == (400, True)
            assert (await client.post("/v1/models/wrong/classify", content=png(0))).status_code == 404
            assert (await client.get("/v1/experiments")).json() == {"experiments": []}

    run(test())


def test_a_key_has_the_same_arm_over_both_protocols(gateway: Gateway) -> None:
    async def test() -> None:
        async with gateway(define("both", sticky="header:x-user")) as (client, server):
            address = f"127.0.0.1:{server.settings.listen.grpc_port}"
            async with grpc.aio.insecure_channel(address) as channel:
                for user in (f"user-{number}" for number in range(8)):
                    wanted = await arm(client, "both", user, id=f"http-{user}")
                    await check_grpc(channel, user, wanted)
                    await check_infer(client, user, wanted)
                await check_feedback(channel)

    run(test())


def test_an_address_has_the_same_arm_over_every_protocol(gateway: Gateway) -> None:
    """A front accepts gRPC connections for the native server, and a third server answers the streams."""
    names = [f"address-{number}" for number in range(8)]
    forged = (("x-convoy-peer", "ipv4:10.1.2.3:4"),)

    async def test() -> None:
        async with gateway(*(define(name, sticky="address") for name in names)) as (client, server):
            address = f"127.0.0.1:{server.settings.listen.grpc_port}"
            async with grpc.aio.insecure_channel(address) as channel:
                stub = ClassifierStub(channel)  # type: ignore[no-untyped-call]
                for name in names:
                    wanted = await arm(client, name, id=f"http-{name}")
                    request = classifier_pb.ClassifyRequest(model=name, images=[png(2)])
                    assert (await stub.Classify(request, metadata=forged)).arm == wanted
                    (streamed,) = [answer async for answer in stub.ClassifyStream(iter([request]), metadata=forged)]
                    assert streamed.arm == wanted

    run(test())


async def check_infer(client: httpx.AsyncClient, user: str, wanted: str) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(png(2)) + 4}}
    head = orjson.dumps({"inputs": [tensor], "outputs": [{"name": "logits", "parameters": {"binary_data": False}}]})
    body = head + len(png(2)).to_bytes(4, "little") + png(2)
    headers = {"x-user": user, "inference-header-content-length": str(len(head))}
    infer = await client.post("/v2/models/both/infer", content=body, headers=headers)
    assert infer.status_code == 200, infer.text
    document = infer.json()
    assert (document["parameters"]["arm"], infer.headers["x-convoy-arm"]) == (wanted, wanted)
    assert document["id"]  # generated for feedback, because the client set none


async def check_feedback(channel: grpc.aio.Channel) -> None:
    stub = ExperimentsStub(channel)  # type: ignore[no-untyped-call]
    item = {"id": "http-user-0", "label": "top left"}
    assert (await stub.SendFeedback(experiments_pb.FeedbackRequest(feedback=[item]))).accepted == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SendFeedback(experiments_pb.FeedbackRequest(feedback=[{"id": "x"}]))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def check_grpc(channel: grpc.aio.Channel, user: str, wanted: str) -> None:
    metadata = (("x-user", user),)
    answer = await ClassifierStub(channel).Classify(  # type: ignore[no-untyped-call]
        classifier_pb.ClassifyRequest(model="both", images=[png(1)]), metadata=metadata
    )
    assert (answer.model, answer.predictions[0].classes[0].label) == ("both", "top right")
    assert answer.arm == wanted
    tensor = inference_pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(png(3))
    request = inference_pb.ModelInferRequest(model_name="both", inputs=[tensor], id=f"oip-{user}")
    infer = await GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata)  # type: ignore[no-untyped-call]
    assert (infer.model_name, infer.id) == ("both", f"oip-{user}")
    assert infer.parameters["arm"].string_param == wanted


def test_a_removed_experiment_answers_404(gateway: Gateway) -> None:
    async def test() -> None:
        async with gateway(define("gone")) as (client, _):
            await arm(client, "gone")
        async with gateway() as (client, _):
            assert (await client.post("/v1/models/gone/classify", content=png(0))).status_code == 404

    run(test())


def test_a_retried_request_is_one_row_of_the_ledger(gateway: Gateway, ledger: Ledger) -> None:
    async def test() -> None:
        async with gateway(define("retried")) as (client, _):
            arms = {await arm(client, "retried", id="same") for _ in range(5)}
            assert len(arms) == 1

    run(test())
    with ledger.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(predictions)).scalar_one() == 1


def test_engine_time_of_an_ensembles_members_counts_for_its_arm(gateway: Gateway) -> None:
    pair = EnsembleConfig(name="pair", members=(MemberConfig(model="a"), MemberConfig(model="b")))

    async def test() -> None:
        async with gateway(define("mixed", second="pair", mode="paired"), ensembles=(pair,)) as (client, server):
            for number in range(20):
                assert await arm(client, "mixed", bright=number % 4) == "one"
            folder = server.settings.node_dir / "metrics"

            async def worked() -> bool:
                shares = total(read_files(folder))[ENGINE_SHARE.name]
                users = {(labels["model"], labels["arm"]) for labels in map(dict, shares) if labels["experiment"]}
                return users == {("a", "one"), ("a", "two"), ("b", "two")}

            await until(worked)

    run(test())


def test_an_experiment_serves_again_when_its_arms_model_is_loaded_again(gateway: Gateway) -> None:
    async def test() -> None:
        async with gateway(define("reloaded")) as (client, _):
            await arm(client, "reloaded")
            assert (await client.post("/v2/repository/models/b/unload")).status_code == 200
            assert (await client.post("/v1/models/reloaded/classify", content=png(0))).status_code == 404
            assert (await client.post("/v1/models/a/classify", content=png(0))).status_code == 200
            assert (await client.post("/v2/repository/models/b/load")).status_code == 200
            await arm(client, "reloaded")

    run(test())


def test_an_answer_of_a_plain_model_names_no_arm(gateway: Gateway) -> None:
    async def test() -> None:
        async with gateway(define("beside")) as (client, _):
            answer = await client.post("/v1/models/a/classify", content=png(0))
            assert "arm" not in answer.json()
            assert "x-convoy-arm" not in answer.headers

    run(test())
