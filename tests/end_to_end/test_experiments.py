"""Experiments on a running server: both protocols, feedback, commands, guardrails and metrics."""

from __future__ import annotations

import io
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from convoy.protos import classifier_pb2 as classifier_pb
from convoy.protos import experiments_pb2 as experiments_pb
from convoy.protos import open_inference_pb2 as inference_pb
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.experiments_pb2_grpc import ExperimentsStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.config.schema import Settings
from tests.artifacts import quadrant_image
from tests.waiting import until


def png(bright: int, value: int = 200) -> bytes:
    file = io.BytesIO()
    Image.fromarray(quadrant_image(bright, value)).save(file, "PNG")
    return file.getvalue()


def classify(http: httpx.Client, name: str, bright: int, user: str = "", **query: str) -> httpx.Response:
    headers = {"x-user": user} if user else {}
    return http.post(f"/v1/models/{name}/classify", content=png(bright), headers=headers, params=query)


def report(http: httpx.Client, name: str) -> dict[str, Any]:
    answer = http.get(f"/v1/experiments/{name}/report")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def samples(http: httpx.Client, name: str) -> int:
    return sum(arm["samples"] for arm in report(http, name)["arms"])


def test_an_experiment_answers_like_a_model_and_names_its_arm(http: httpx.Client) -> None:
    answer = classify(http, "split", 2, user="ada", id="split-1")
    document = answer.json()
    assert answer.status_code == 200, answer.text
    assert document["model"] == "split"
    assert document["predictions"][0]["classes"][0]["label"] == "bottom left"
    assert document["arm"] in ("one", "two")
    assert answer.headers["x-convoy-arm"] == document["arm"]
    assert answer.headers["x-request-id"] == "split-1"
    assert http.get("/v2/models/split").json()["name"] == "split"


def test_a_key_sticks_to_its_arm_on_every_protocol(
    http: httpx.Client, classifier: ClassifierStub, inference: GRPCInferenceServiceStub
) -> None:
    for user in (f"user-{number}" for number in range(12)):
        arm = classify(http, "split", 0, user=user).json()["arm"]
        request = classifier_pb.ClassifyRequest(model="split", images=[png(1)])
        assert classifier.Classify(request, metadata=(("x-user", user),)).arm == arm
        tensor = inference_pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(png(3))
        infer = inference_pb.ModelInferRequest(model_name="split", inputs=[tensor], id=f"oip-{user}")
        response = inference.ModelInfer(infer, metadata=(("x-user", user),))
        assert (response.parameters["arm"].string_param, response.id) == (arm, f"oip-{user}")
        binary = http.post(
            "/v2/models/split/infer", content=png(2), headers={"x-user": user, "inference-header-content-length": "0"}
        )
        assert binary.headers["x-convoy-arm"] == arm


def test_both_arms_get_their_share(http: httpx.Client) -> None:
    arms = [classify(http, "split", 0, user=f"someone-{number}").json()["arm"] for number in range(100)]
    assert 25 <= arms.count("one") <= 75


def test_early_late_and_repeated_feedback_counts_once(http: httpx.Client, channel: grpc.Channel) -> None:
    before = samples(http, "split")
    items = [{"id": f"fb-{number}", "label": number % 4} for number in range(20)]
    assert http.post("/v1/feedback", json={"feedback": items[:10]}).json() == {"accepted": 10}
    for number in range(20):
        classify(http, "split", number % 4, user=f"u{number}", id=f"fb-{number}")
    assert http.post("/v1/feedback", json={"feedback": items}).status_code == 202
    stub = ExperimentsStub(channel)  # type: ignore[no-untyped-call]
    repeated = experiments_pb.FeedbackRequest(feedback=[{"id": "fb-0", "label": "top left"}])
    assert stub.SendFeedback(repeated).accepted == 1
    until(lambda: samples(http, "split") == before + 20)
    assert {arm["metric"]["value"] for arm in report(http, "split")["arms"]} <= {1.0, None}


def test_every_image_of_a_request_has_its_own_outcome(http: httpx.Client) -> None:
    before = samples(http, "split")
    files = [("a", ("a.png", png(0), "image/png")), ("b", ("b.png", png(1), "image/png"))]
    answer = http.post("/v1/models/split/classify?id=multi", files=files, headers={"x-user": "multi"})
    assert len(answer.json()["predictions"]) == 2
    items = [{"id": "multi", "position": position, "label": position} for position in range(2)]
    http.post("/v1/feedback", json={"feedback": items})
    until(lambda: samples(http, "split") == before + 2)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"feedback": []}, "1 to"),
        ({"id": "x"}, "needs a label"),
        ({"id": "x", "label": "no such class"}, "no experiment here has a class"),
        ({"feedback": [{"id": "x", "label": 1}, {"id": 5, "label": 1}]}, "feedback[1]"),
        ({"id": "x", "label": 1, "lable": 2}, "lable"),
        ({"id": "x", "reward": "much"}, "finite number"),
    ],
)
def test_malformed_feedback_is_refused_with_the_reason(http: httpx.Client, document: Any, text: str) -> None:
    answer = http.post("/v1/feedback", json=document)
    assert answer.status_code == 400
    assert text in answer.json()["error"]


def test_feedback_and_commands_must_have_the_json_content_type(http: httpx.Client) -> None:
    assert http.post("/v1/feedback", content=b'{"id":"x","label":1}').status_code == 415
    assert http.post("/v1/experiments/split/stop", content=b"{}").status_code == 415


def test_pairs_answer_from_the_control_and_see_every_image(http: httpx.Client) -> None:
    for number in range(40):
        answer = classify(http, "paired", number % 4, id=f"pair-{number}")
        assert answer.json()["arm"] == "control"
    http.post("/v1/feedback", json={"feedback": [{"id": f"pair-{n}", "label": n % 4} for n in range(40)]})
    found = until(lambda: (document := report(http, "paired"))["comparisons"][0]["samples"] >= 20 and document)
    assert found["comparisons"][0]["agreement"]["value"] == 1.0
    assert found["arms"][1]["engine_ms"]["value"] > 0


def test_failures_of_a_shadow_arm_do_not_affect_answers(http: httpx.Client) -> None:
    for number in range(10):
        assert classify(http, "shadow", number % 4).status_code == 200
        poisoned = http.post("/v1/models/shadow/classify", content=png(0, 255))
        assert poisoned.status_code == 200
        assert poisoned.json()["arm"] == "good"
    until(lambda: report(http, "shadow")["arms"][1]["failures"] > 0)
    assert report(http, "shadow")["arms"][0]["failures"] == 0


def test_a_guardrail_stops_a_failing_arm(http: httpx.Client) -> None:
    def answers() -> set[str]:
        sent = [http.post("/v1/models/guarded/classify", content=png(0, 255)) for _ in range(10)]
        return {answer.json().get("arm", "failed") for answer in sent}

    def rollbacks() -> list[dict[str, Any]]:
        return [decision for decision in report(http, "guarded")["decisions"] if decision["action"] == "rollback"]

    (decision,) = until(lambda: answers() and rollbacks())  # before it, ten answers may all be good by chance
    until(lambda: answers() == {"good"})
    assert decision["arm"] == "bad"
    assert "error_rate" in decision["reason"]
    assert http.get("/v1/experiments/guarded").json()["state"] == "stopped"


def test_a_canary_is_ramped_promoted_and_stopped_by_command(http: httpx.Client) -> None:
    def shares() -> dict[str, float]:
        return dict(http.get("/v1/experiments/canary").json()["shares"])

    assert shares()["new"] == pytest.approx(0.05)
    assert http.post("/v1/experiments/canary/ramp", json={"percent": 50}).status_code == 200
    until(lambda: shares()["new"] == 0.5)
    assert http.post("/v1/experiments/canary/promote", json={"arm": "new"}).status_code == 200
    until(lambda: {classify(http, "canary", 0).json()["arm"] for _ in range(5)} == {"new"})
    refused = http.post("/v1/experiments/canary/ramp", json={})
    assert (refused.status_code, "promoted" in refused.json()["error"]) == (400, True)
    assert http.post("/v1/experiments/canary/stop", json={}).status_code == 200
    until(lambda: {classify(http, "canary", 0).json()["arm"] for _ in range(5)} == {"old"})


def test_an_experiment_can_be_started_while_serving(http: httpx.Client) -> None:
    definition = {
        "name": "ad-hoc",
        "arms": [{"name": "a", "model": "quadrants-a"}, {"name": "b", "model": "quadrants-b"}],
    }
    assert http.post("/v1/experiments", json=definition).status_code == 201
    until(lambda: classify(http, "ad-hoc", 0).status_code == 200)
    changed = http.post("/v1/experiments", json=definition | {"effect": 0.1})
    assert changed.json()["revision"] == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"arms": [{"name": "a", "model": "quadrants-a"}, {"name": "b", "model": "nowhere"}]}, "nowhere"),
        ({"arms": [{"name": "a", "model": "quadrants-a"}, {"name": "b", "model": "lenet5-mnist"}]}, "different labels"),
        ({"name": "quadrants-a"}, "is a model"),
        ({"modes": "split"}, "modes"),
        ({"webhook": "http://127.0.0.1:1/"}, "webhook"),
        (
            {
                "arms": [
                    {"name": "a", "model": "quadrants-a", "weight": 0.5},
                    {"name": "b", "model": "quadrants-b", "weight": 0.4},
                ]
            },
            "sum to 1",
        ),
    ],
)
def test_invalid_experiments_are_refused_with_the_reason(
    http: httpx.Client, changes: dict[str, Any], text: str
) -> None:
    arms = [{"name": "a", "model": "quadrants-a"}, {"name": "b", "model": "quadrants-b"}]
    answer = http.post("/v1/experiments", json={"name": "wrong", "arms": arms} | changes)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert classify(http, "wrong", 0).status_code == 404


def test_metrics_count_requests_by_arm(http: httpx.Client, server: Settings) -> None:
    arm = classify(http, "split", 0, user="metrics").json()["arm"]

    def exported(series: str) -> bool:
        return series in httpx.get(f"http://127.0.0.1:{server.listen.metrics_port}/metrics").text

    until(lambda: exported(f'convoy_experiment_requests_total{{arm="{arm}"'))
    until(lambda: exported("convoy_ledger_events_total"))


def test_a_field_of_a_tensor_request_selects_the_arm(http: httpx.Client) -> None:
    rows = np.zeros((1, 8, 8, 1), np.uint8).tolist()
    document = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": rows}]}
    arms = set()
    for user in ("x", "x", "x"):
        answer = http.post("/v2/models/by-field/infer", json=document | {"parameters": {"user": user}})
        assert answer.status_code == 200, answer.text
        arms.add(answer.headers["x-convoy-arm"])
    assert len(arms) == 1
    assert http.get("/v1/experiments/none").status_code == 404
    assert http.get("/v1/experiments/none/report").status_code == 404
