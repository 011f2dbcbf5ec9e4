"""Ensembles, views and cascades are served like ordinary models."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from convoy.cli import main
from convoy.client import Client
from convoy.protos import open_inference_pb2
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from models.artifact import BUNDLED, Artifact
from models.engines.backends.registry import load_engine
from models.ensembles.combine import Rule
from models.ensembles.views import View, arrange, looks_at
from serve.config.schema import Settings
from tests.artifacts import POISON, quadrant_image


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def ask(http: httpx.Client, model: str, body: bytes, **options: Any) -> dict[str, Any]:
    answer = http.post(f"/v1/models/{model}/classify", content=body, params={"top_k": 1000} | options)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def probabilities(document: dict[str, Any], position: int = 0) -> NDArray[np.float64]:
    classes = document["predictions"][position]["classes"]
    by_index = np.zeros(len(classes))
    by_index[[entry["index"] for entry in classes]] = [entry["probability"] for entry in classes]
    return by_index


def offline(
    model: str, pixels: NDArray[np.uint8], plan: Sequence[tuple[tuple[View, ...], float]], rule: Rule
) -> NDArray[np.float64]:
    """The combined distribution in double precision, computed with only the engine and Pillow."""
    artifact = Artifact.load(BUNDLED / model)
    steps, engine = artifact.manifest.preprocessing, load_engine(artifact.image_model, 1)
    image = Image.fromarray(pixels.squeeze())
    rows, weights = [], []
    for views, weight in plan:
        looks = looks_at(views, *image.size, steps)
        for look in looks:
            square = np.asarray(image.resize((steps.size, steps.size), Image.Resampling.BILINEAR, look.box))
            rows.append(arrange(square.reshape(steps.size, steps.size, steps.channels), look))
            weights.append(weight / len(looks))
    logits = engine.run(np.stack(rows)).astype(np.float64)
    if rule == "geometric_mean":
        return softmax(np.average(logits, axis=0, weights=weights))
    return np.asarray(np.average([softmax(row) for row in logits], axis=0, weights=weights))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def test_an_ensemble_of_one_member_answers_like_the_member(http: httpx.Client, samples: Path) -> None:
    for file in sorted(samples.glob("cifar10-*.png")):
        alone, composed = (ask(http, name, file.read_bytes()) for name in ("resnet20-cifar10", "cifar10-alone"))
        assert composed["predictions"] == alone["predictions"]
        assert composed["model"] == "cifar10-alone"
        (member,) = composed["members"]
        assert (member["model"], member["outcome"], member["images"]) == ("resnet20-cifar10", "answered", 1)


def test_answers_equal_an_offline_computation(http: httpx.Client, samples: Path) -> None:
    """To 1e-5 for shifts of a grey image; more loosely for weighted views, whose crops are resized."""
    for file in sorted(samples.glob("mnist-*.png")):
        with Image.open(file) as image:
            pixels = np.asarray(image)
        expected = offline("lenet5-mnist", pixels, [(("shift",), 2.0)], "mean_probability")
        np.testing.assert_allclose(probabilities(ask(http, "digits-shifted", file.read_bytes())), expected, atol=1e-5)
    for file in sorted(samples.glob("cifar10-*.png")):
        with Image.open(file) as image:
            pixels = np.asarray(image)
        plan: list[tuple[tuple[View, ...], float]] = [(("flip",), 1.0), (("five_crops",), 0.5)]
        expected = offline("resnet20-cifar10", pixels, plan, "geometric_mean")
        served = probabilities(ask(http, "cifar10-looks", file.read_bytes()))
        # Crops of a 32 px image are enlarged, and the two resamplers round differently.
        np.testing.assert_allclose(served, expected, atol=0.05)


def test_a_batch_gets_the_answers_of_single_requests(http: httpx.Client, samples: Path) -> None:
    images = [file.read_bytes() for file in sorted(samples.glob("cifar10-*.png"))]
    for model in ("cifar10-looks", "cifar10-cascade"):
        alone = [ask(http, model, image) for image in images]
        together = http.post(
            f"/v1/models/{model}/classify?top_k=10", files=[("image", image) for image in images]
        ).json()
        for position, single in enumerate(alone):
            np.testing.assert_allclose(probabilities(together, position), probabilities(single), atol=1e-5)


def test_ten_crops_of_a_photo_run_on_a_dedicated_host(http: httpx.Client, samples: Path) -> None:
    document = ask(http, "photo-crops", (samples / "chelsea.png").read_bytes(), top_k=5)
    assert "tabby cat" in [entry["label"] for entry in document["predictions"][0]["classes"]]


def test_both_protocols_give_the_same_answer(
    server: Settings, http: httpx.Client, inference: GRPCInferenceServiceStub, samples: Path
) -> None:
    image = (samples / "cifar10-12-dog.png").read_bytes()
    members = []
    for url in (f"http://127.0.0.1:{server.listen.http_port}", f"grpc://127.0.0.1:{server.listen.grpc_port}"):
        with Client(url) as client:
            answer_of_client = client.classify("cifar10-looks", image, top_k=10)
            members.append([(member.model, member.outcome, member.images) for member in answer_of_client.members])
    assert members[0] == members[1] == [("resnet20-cifar10", "answered", 1)] * 2
    over_grpc = answer_of_client.predictions[0].classes
    over_http = ask(http, "cifar10-looks", image)["predictions"][0]["classes"]
    for received, expected in zip(over_grpc, over_http, strict=True):
        assert received.label == expected["label"]
        assert received.probability == pytest.approx(expected["probability"], abs=1e-5)

    with Image.open(io.BytesIO(image)) as opened:
        pixels = np.asarray(opened)[np.newaxis]
    request = open_inference_pb2.ModelInferRequest(model_name="cifar10-looks", raw_input_contents=[pixels.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=pixels.shape)
    answer = inference.ModelInfer(request)
    assert answer.parameters["members_answered"].string_param == "resnet20-cifar10,resnet20-cifar10"
    raw = len(image).to_bytes(4, "little") + image
    request = open_inference_pb2.ModelInferRequest(model_name="cifar10-looks", raw_input_contents=[raw])
    request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    from_bytes = inference.ModelInfer(request)
    logits = [np.frombuffer(message.raw_output_contents[0], np.float32) for message in (answer, from_bytes)]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
    best = [entry["index"] for entry in over_http]
    assert np.argsort(-logits[0]).tolist() == best


def test_a_cascade_reports_the_stages_of_each_image(http: httpx.Client, samples: Path) -> None:
    """If the first stage is confident, its answer is that of the cascade, and no later stage runs."""
    seen = set()
    for file in sorted(samples.glob("cifar10-*.png")):
        first = probabilities(ask(http, "resnet20-cifar10", file.read_bytes()))
        document = ask(http, "cifar10-cascade", file.read_bytes())
        best = np.sort(first)[::-1]
        confident = best[0] - best[1] >= 0.9
        assert [member["images"] for member in document["members"]] == [1] * (1 if confident else 3)
        expected = first if confident else probabilities(ask(http, "cifar10-looks", file.read_bytes()))
        np.testing.assert_allclose(probabilities(document), expected, atol=1e-5)
        seen.add(confident)
    assert seen == {True, False}, "the samples cover both cases"


def test_a_failing_member_is_left_out_while_enough_answer(http: httpx.Client) -> None:
    broken = encoded(quadrant_image(2, POISON))
    document = ask(http, "quadrants-any", broken)
    assert document["predictions"][0]["classes"][0]["label"] == "bottom left"
    assert [(member["model"], member["outcome"]) for member in document["members"]] == [
        ("faulty", "failed"),
        ("slow", "answered"),
    ]
    refused = http.post("/v1/models/quadrants-both/classify", content=broken)
    assert refused.status_code == 500
    assert "1 of 2 members answered, 2 needed; faulty" in refused.json()["error"]


def test_a_member_that_is_busy_is_left_out_at_the_deadline(http: httpx.Client) -> None:
    """Urgent images keep the slow member busy for longer than the ensemble's deadline."""
    image = encoded(quadrant_image(1))
    urgent = {"x-request-priority": "1"}
    files = [("image", image)] * 60
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(http.post, "/v1/models/slow/classify", files=files, headers=urgent)
        while waiting(http, "slow") < 30:
            assert not busy.done(), busy.result().text
        document = ask(http, "quadrants-soon", image)
        assert busy.result().status_code == 200
    assert document["predictions"][0]["classes"][0]["label"] == "top right"
    quick, slow = document["members"]
    assert (quick["model"], quick["outcome"]) == ("faulty", "answered")
    assert slow["outcome"] in ("late", "failed")  # failed: refused at once because the queue was known to be too long
    assert slow["reason"]


def waiting(http: httpx.Client, model: str) -> int:
    models = http.get("/v1/explain").json()["models"]
    return int(next(entry["waiting"] for entry in models if entry["name"] == model))


def test_ensembles_refuse_bad_input_like_models(http: httpx.Client) -> None:
    assert http.post("/v1/models/cifar10-looks/classify", content=b"no image").status_code == 400
    wrong = {"name": "image", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [0.0] * 3072}
    answer = http.post("/v2/models/cifar10-looks/infer", json={"inputs": [wrong]})
    assert answer.status_code == 400
    assert "takes UINT8 or BYTES" in answer.json()["error"]
    grey = {"name": "image", "datatype": "UINT8", "shape": [1, 4, 4, 1], "data": [0] * 16}
    answer = http.post("/v2/models/cifar10-looks/infer", json={"inputs": [grey]})
    assert answer.status_code == 400
    assert "[-1, -1, -1, 3]" in answer.json()["error"]
    assert http.post("/v1/models/cifar10-loks/classify", content=b"x").status_code == 404


def test_explain_shows_members_and_cost_before_any_request(server: Settings, http: httpx.Client) -> None:
    plans = {plan["name"]: plan for plan in http.get("/v1/explain").json()["compositions"]}
    first, second = plans["cifar10-cascade"]["stages"]
    assert plans["cifar10-cascade"]["decodes_per_image"] == 1
    assert [member["rows_per_image"] for member in second["members"]] == [2, 5]
    assert second["engine_ms_per_image"] > first["engine_ms_per_image"] > 0
    macs = Artifact.load(BUNDLED / "resnet20-cifar10").manifest.macs
    assert second["members"][0]["macs_per_image"] == 2 * macs
    url = f"http://127.0.0.1:{server.listen.http_port}"
    shown = CliRunner().invoke(main, ["explain", "--live", "--url", url], env={"COLUMNS": "160"})
    assert shown.exit_code == 0, shown.output
    assert "cifar10-cascade" in shown.output
    listed = json.loads(CliRunner().invoke(main, ["models", "--json", "--url", url]).output)
    kinds = {model["name"]: model["architecture"] for model in listed}
    assert (kinds["cifar10-looks"], kinds["cifar10-cascade"]) == ("ensemble", "cascade")
    assert "cifar10-looks" in CliRunner().invoke(main, ["models", "--url", url], env={"COLUMNS": "160"}).output


def test_metrics_distinguish_members(server: Settings, http: httpx.Client) -> None:
    for _ in range(3):
        ask(http, "quadrants-any", encoded(quadrant_image(0, POISON)))
    text = httpx.get(f"http://127.0.0.1:{server.listen.metrics_port}/metrics").text
    lines = [line for line in text.splitlines() if 'model="quadrants-any"' in line]
    for wanted in (
        'convoy_member_requests_total{member="faulty",model="quadrants-any",outcome="failed"',
        'convoy_member_requests_total{member="slow",model="quadrants-any",outcome="answered"',
        'convoy_member_engine_seconds_total{member="slow"',
        'convoy_member_seconds_count{member="slow"',
        'convoy_samples_total{model="quadrants-any"',
        'convoy_requests_total{code="200"',
    ):
        values = [float(line.rpartition(" ")[2]) for line in lines if set(_labels(wanted)) <= set(_labels(line))]
        assert values, wanted
        assert values[0] > 0


def _labels(line: str) -> list[str]:
    name, _, rest = line.partition("{")
    return [name, *rest.partition("}")[0].split(",")]
