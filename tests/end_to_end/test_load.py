"""Concurrent load: answers do not depend on batching, overload is refused, and every request is counted."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from convoy.protos import classifier_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from serve.config.schema import Settings
from tests.artifacts import quadrant_image

PATIENCE_SECONDS = 20


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def scrape(settings: Settings, prefix: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Metrics whose names begin with `prefix`; parsing all metrics of a busy server takes longer than some requests."""
    page = httpx.get(f"http://127.0.0.1:{settings.listen.metrics_port}/metrics").text
    text = "\n".join(line for line in page.splitlines() if line.startswith(prefix)) + "\n"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (found, having), value in samples.items() if found == name and wanted <= having)


def wait_for(settings: Settings, name: str, value: float, **labels: str) -> float:
    """Waits until a metric has the value. Returns its last value, which differs after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    while (found := total(scrape(settings, name), name, **labels)) != value and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_two_thousand_concurrent_requests_get_the_answers_of_single_ones(http: httpx.Client, server: Settings) -> None:
    generator = np.random.default_rng(7)
    digits = [png(generator.integers(0, 256, (28, 28), np.uint8)) for _ in range(20)]
    pictures = [png(generator.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(20)]
    questions = [("lenet5-mnist", body) for body in digits] + [("resnet20-cifar10", body) for body in pictures]

    def ask_alone(model: str, body: bytes) -> list[tuple[int, float]]:
        (prediction,) = http.post(f"/v1/models/{model}/classify", content=body).json()["predictions"]
        return [(entry["index"], entry["probability"]) for entry in prediction["classes"]]

    alone = [ask_alone(model, body) for model, body in questions]

    async def ask_all() -> list[tuple[int, int, list[tuple[int, float]]]]:
        """(number, batch size, classes) of concurrent requests, half of them over gRPC."""
        # At most as many in flight as the queue holds. The others wait here, not in httpx's pool, which searches all
        # waiting requests whenever one ends: a minute for 2 000 requests.
        free = asyncio.Semaphore(server.limits.queue_rows)
        async with (
            httpx.AsyncClient(base_url=str(http.base_url), timeout=120) as client,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.listen.grpc_port}") as channel,
        ):
            stub = ClassifierStub(channel)  # type: ignore[no-untyped-call]

            async def over_http(number: int) -> tuple[int, int, list[tuple[int, float]]]:
                model, body = questions[number]
                async with free:
                    answer = await client.post(f"/v1/models/{model}/classify", content=body)
                document = answer.raise_for_status().json()
                classes = document["predictions"][0]["classes"]
                return number, document["batch_size"], [(entry["index"], entry["probability"]) for entry in classes]

            async def over_grpc(number: int) -> tuple[int, int, list[tuple[int, float]]]:
                model, body = questions[number]
                async with free:
                    answer = await stub.Classify(classifier_pb2.ClassifyRequest(model=model, images=[body]))
                classes = answer.predictions[0].classes
                return number, answer.batch_size, [(entry.index, entry.probability) for entry in classes]

            numbers = [int(number) for number in generator.integers(0, len(questions), 2000)]
            asks = [(over_grpc if place % 2 else over_http)(number) for place, number in enumerate(numbers)]
            return list(await asyncio.gather(*asks))

    answers = asyncio.run(ask_all())
    assert len(answers) == 2000
    assert max(size for _, size, _ in answers) > 1, "no requests were batched"
    for number, _, classes in answers:
        for (index, probability), (expected, reference) in zip(classes, alone[number], strict=True):
            assert index == expected
            assert probability == pytest.approx(reference, abs=1e-4)


def test_a_full_queue_answers_503(http: httpx.Client) -> None:
    image = png(quadrant_image(3))

    async def storm() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=120)
        async with httpx.AsyncClient(base_url=str(http.base_url), timeout=120, limits=limits) as client:
            return list(
                await asyncio.gather(*(client.post("/v1/models/slow/classify", content=image) for _ in range(120)))
            )

    answers = asyncio.run(storm())
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 503}
    assert codes[200] >= 64, "the queue holds 64"
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert "queue" in answer.json()["error"]
        else:
            assert answer.json()["predictions"][0]["classes"][0]["label"] == "bottom right"


def test_a_full_queue_answers_resource_exhausted_over_grpc(classifier: ClassifierStub) -> None:
    image = png(quadrant_image(3))
    request = classifier_pb2.ClassifyRequest(model="slow", images=[image])
    calls = [classifier.Classify.future(request) for _ in range(100)]
    codes = Counter(call.code() for call in calls)
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_every_request_is_counted(http: httpx.Client, server: Settings, samples: Path) -> None:
    body = (samples / "mnist-0-7.png").read_bytes()
    labels = {"model": "lenet5-mnist"}
    before = scrape(server)
    for _ in range(30):
        http.post("/v1/models/lenet5-mnist/classify", content=body)
    for _ in range(3):
        http.post("/v1/models/lenet5-mnist/classify", content=b"no image")
    answered = total(before, "convoy_requests_total", code="200", protocol="http", **labels) + 30
    assert wait_for(server, "convoy_requests_total", answered, code="200", protocol="http", **labels) == answered
    timed = total(before, "convoy_request_seconds_count", **labels) + 30
    assert wait_for(server, "convoy_request_seconds_count", timed, **labels) == timed
    after = scrape(server)

    def grown(name: str, **more: str) -> float:
        return total(after, name, **labels, **more) - total(before, name, **labels, **more)

    assert grown("convoy_requests_total", code="400") == 3
    assert grown("convoy_samples_total") == 30
    assert grown("convoy_batch_size_sum") == 30
    assert grown("convoy_batches_total") == grown("convoy_batch_size_count")
    for stage in ("receive", "decode", "queue", "run", "post", "send"):
        assert grown("convoy_stage_seconds_count", stage=stage) == 30
    stages = sum(
        grown("convoy_stage_seconds_sum", stage=stage)
        for stage in ("receive", "decode", "queue", "run", "post", "send")
    )
    assert stages == pytest.approx(grown("convoy_request_seconds_sum"), rel=1e-6)
    assert grown("convoy_busy_seconds_total") > 0
    assert total(after, "convoy_build_info") == 1


def test_requests_of_disconnected_clients_are_counted_and_not_run(http: httpx.Client, server: Settings) -> None:
    image = png(quadrant_image(1))
    labels = {"model": "slow"}
    before = scrape(server)
    idle = total(before, "convoy_requests_in_flight", protocol="http")
    head = f"POST /v1/models/slow/classify HTTP/1.1\r\nhost: x\r\ncontent-length: {len(image)}\r\n\r\n".encode()
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        files = [("image", image)] * 50  # ahead of the requests that are cancelled
        ahead = pool.submit(http.post, "/v1/models/slow/classify", files=files)
        assert wait_for(server, "convoy_requests_in_flight", idle + 1, protocol="http") == idle + 1
        leaving = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.listen.http_port))) for _ in range(12)
        ]
        for connection in leaving:
            connection.sendall(head + image)
        assert wait_for(server, "convoy_requests_in_flight", idle + 13, protocol="http") == idle + 13
        stack.close()
        assert ahead.result().status_code == 200
    assert wait_for(server, "convoy_requests_in_flight", idle, protocol="http") == idle
    after = scrape(server)
    cancelled = total(after, "convoy_cancelled_total", **labels) - total(before, "convoy_cancelled_total", **labels)
    ran = total(after, "convoy_samples_total", **labels) - total(before, "convoy_samples_total", **labels)
    assert (cancelled, ran) == (12, 50)


def test_the_profile_adds_up_and_names_the_bottleneck(http: httpx.Client, server: Settings) -> None:
    body = png(quadrant_image(1))

    async def load_and_look() -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=str(http.base_url), timeout=60) as client:
            looking = asyncio.create_task(client.get("/v1/profile", params={"seconds": 1.5}))

            async def ask() -> None:
                while not looking.done():
                    (await client.post("/v1/models/slow/classify", content=body)).raise_for_status()

            await asyncio.gather(*(ask() for _ in range(8)))
            return dict((await looking).raise_for_status().json())

    profile = asyncio.run(load_and_look())
    (slow,) = profile["models"]
    assert slow["name"] == "slow"
    assert sum(slow["stages_ms"].values()) == pytest.approx(slow["total_ms"], abs=0.01)
    assert slow["stages_ms"]["queue"] > slow["stages_ms"]["decode"]
    busy = {resource["name"]: resource["busy"] for resource in profile["resources"]}
    assert busy["engine of slow"] > 0.5
    assert 0 < busy["event loop"] < 1
    assert profile["bottleneck"].split(":")[0] in {"engine of slow", "cores of the machine"}


def test_a_profile_refuses_invalid_durations(http: httpx.Client) -> None:
    for seconds in ("x", "nan", "-1", "0", "1e9"):
        assert http.get("/v1/profile", params={"seconds": seconds}).status_code == 400
