"""The energy of an answer: present on request, with its source and method."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy.client import Client
from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from convoy.protos.open_inference_pb2_grpc import GRPCInferenceServiceStub
from serve.config.schema import Settings

PATIENCE_SECONDS = 20
MODEL = "/v1/models/lenet5-mnist/classify"


@pytest.fixture
def digit(samples: Path) -> bytes:
    return (samples / "mnist-0-7.png").read_bytes()


def priced(http: httpx.Client, image: bytes, path: str = MODEL) -> dict[str, Any]:
    """An answer with its energy, which is known from the node agent's first measurement after an answer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer: dict[str, Any] = http.post(path, content=image, params={"energy": "true"}).json()
        if answer["energy_mj"] is not None or time.monotonic() > end:
            return answer


def test_an_answer_has_its_energy_with_source_and_method(http: httpx.Client, digit: bytes) -> None:
    answer = priced(http, digit)
    assert answer["energy_mj"] >= 0
    assert (answer["energy_source"], answer["energy_method"]) == ("declared", "estimated")


def test_energy_can_be_requested_in_json_and_forms(http: httpx.Client, digit: bytes) -> None:
    priced(http, digit)
    as_json = http.post(MODEL, json={"images": [base64.b64encode(digit).decode()], "energy": True})
    as_form = http.post(MODEL, files={"image": digit}, data={"energy": "true"})
    assert as_json.json()["energy_method"] == as_form.json()["energy_method"] == "estimated"


def test_energy_is_absent_unless_requested(http: httpx.Client, digit: bytes) -> None:
    assert not any("energy" in key for key in http.post(MODEL, content=digit).json())


def test_an_invalid_flag_is_refused(http: httpx.Client, digit: bytes) -> None:
    answer = http.post(MODEL, content=digit, params={"energy": "much"})
    assert answer.status_code == 400
    assert "true or false" in answer.json()["error"]


def test_both_protocols_and_the_client_return_the_energy(
    server: Settings, http: httpx.Client, classifier: ClassifierStub, digit: bytes
) -> None:
    priced(http, digit)
    answer_with = classifier.Classify(classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=[digit], energy=True))
    assert answer_with.energy_mj > 0
    assert (answer_with.energy_source, answer_with.energy_method) == ("declared", "estimated")
    answer_without = classifier.Classify(classifier_pb2.ClassifyRequest(model="lenet5-mnist", images=[digit]))
    assert not answer_without.HasField("energy_mj")
    assert (answer_without.energy_source, answer_without.energy_method) == ("", "")
    for url in (f"http://127.0.0.1:{server.listen.http_port}", f"grpc://127.0.0.1:{server.listen.grpc_port}"):
        with Client(url) as client:
            answer = client.classify("lenet5-mnist", digit, energy=True)
            assert answer.energy is not None
            assert answer.energy.millijoules is not None
            assert (answer.energy.source, answer.energy.method) == ("declared", "estimated")
            assert client.classify("lenet5-mnist", digit).energy is None


def test_infer_returns_the_energy_as_parameters(
    http: httpx.Client, inference: GRPCInferenceServiceStub, digit: bytes
) -> None:
    priced(http, digit)
    raw = len(digit).to_bytes(4, "little") + digit
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}

    def ask(**parameters: Any) -> httpx.Response:
        head = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        return http.post("/v2/models/lenet5-mnist/infer", content=head + raw, headers=headers)

    over_http = ask(energy=True).json()["parameters"]
    assert over_http["energy_mj"] > 0
    assert (over_http["energy_source"], over_http["energy_method"]) == ("declared", "estimated")
    assert "parameters" not in ask(energy=False).json()
    assert "true or false" in ask(energy="much").json()["error"]

    request = open_inference_pb2.ModelInferRequest(model_name="lenet5-mnist", raw_input_contents=[raw])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    assert not inference.ModelInfer(request).parameters
    request.parameters["energy"].bool_param = True
    over_grpc = inference.ModelInfer(request).parameters
    assert set(over_grpc) == set(over_http)
    assert over_grpc["energy_mj"].double_param > 0
    assert over_grpc["energy_source"].string_param == "declared"


def test_the_energy_of_an_ensemble_counts_its_members(
    http: httpx.Client, classifier: ClassifierStub, samples: Path
) -> None:
    ship = (samples / "cifar10-1-ship.png").read_bytes()
    priced(http, ship, "/v1/models/cifar10-looks/classify")
    request = classifier_pb2.ClassifyRequest(model="cifar10-looks", images=[ship], energy=True)
    answer = classifier.Classify(request)
    assert answer.HasField("energy_mj")
    assert answer.energy_mj > 0
    assert answer.energy_source == "declared"
    assert sum(member.engine_ms for member in answer.members) > 0
