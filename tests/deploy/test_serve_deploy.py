"""The output of `convoy render` on a real Ray node: `serve deploy`, requests, and changes without a restart."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.artifact import BUNDLED
from serve.cluster.service_discovery import METER_RESOURCE
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments.applications import GATEWAY_RESOURCE, STEWARD_RESOURCE
from serve.deployments.local import CLOUD_METADATA_HOSTS
from serve.deployments.serve_config import deploy_yaml
from tests.artifacts import garble, write_artifact
from tests.deploy.ray_node import RayNode, answers, ray_node, wait_until

pytestmark = pytest.mark.slow  # starts Ray with its dashboard

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
DEDICATED = {"name": "resnet20-cifar10", "placement": "dedicated"}


@pytest.fixture(scope="module")
def node(free_ports: Callable[[int], list[int]]) -> Iterator[RayNode]:
    resources = dict.fromkeys((GATEWAY_RESOURCE, METER_RESOURCE, STEWARD_RESOURCE), 1)
    with ray_node(free_ports, cpus=2, resources=json.dumps(resources)) as started:
        yield started


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> dict[str, Any]:
    http_port, grpc_port, metrics_port = free_ports(3)
    return {
        "listen": {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port},
        "runtime_dir": str(tmp_path_factory.mktemp("node")),
        "cores": 2,
        "models": [{"name": "lenet5-mnist"}, DEDICATED],
    }


@pytest.fixture(scope="module")
def served(node: RayNode, document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = parse_settings(document)
    deploy(node, settings, tmp_path_factory.mktemp("rendered"))
    with httpx.Client(base_url=f"http://127.0.0.1:{settings.listen.http_port}", timeout=30) as client:
        wait_until(lambda: answers(node, f"{client.base_url}/-/healthz"))
        yield client


def deploy(node: RayNode, settings: Settings, folder: Path) -> None:
    path = folder / "serve.yaml"
    path.write_text(deploy_yaml(settings))
    node.deploy(path)


def classify(client: httpx.Client, model: str) -> dict[str, Any]:
    answer = client.post(f"/v1/models/{model}/classify", content=DIGIT)
    assert answer.status_code == httpx.codes.OK, answer.text
    document: dict[str, Any] = answer.json()
    return document


def models(client: httpx.Client) -> set[str]:
    return {model["name"] for model in client.get("/v1/models").json()["models"]}


def gateway_of(answer: dict[str, Any]) -> str:
    """The gateway process that has answered: request ids begin with its identifier."""
    return str(answer["id"]).partition("-")[0]


def test_the_rendered_document_is_deployed_and_answers(served: httpx.Client) -> None:
    answer = classify(served, "lenet5-mnist")
    assert answer["predictions"][0]["classes"][0]["label"] == "7"
    assert classify(served, "resnet20-cifar10")["predictions"]


def test_a_node_sends_no_usage_report(node: RayNode, served: httpx.Client) -> None:
    """Ray reports even that its reports are off. Its lookup of the cloud provider at every start is accepted."""
    assert [asked for asked in node.proxy.asked if not any(name in asked for name in CLOUD_METADATA_HOSTS)] == []


def test_only_probes_need_no_token(node: RayNode, served: httpx.Client) -> None:
    assert served.get("/-/healthz").text == "success"
    assert node.ask(f"{node.agent}/api/healthz").status_code == httpx.codes.OK
    assert node.ask(f"{node.dashboard}/api/serve/applications/").status_code == httpx.codes.UNAUTHORIZED


def test_a_change_of_the_catalog_applies_in_place(
    node: RayNode, document: dict[str, Any], served: httpx.Client, tmp_path: Path
) -> None:
    before = gateway_of(classify(served, "lenet5-mnist"))
    ended, gateways = threading.Event(), set()

    def send() -> None:
        while not ended.is_set():
            gateways.add(gateway_of(classify(served, "lenet5-mnist")))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        changed = document | {"models": [*document["models"], {"name": "squeezenet1_1-imagenet"}]}
        deploy(node, parse_settings(changed), tmp_path)
        wait_until(lambda: "squeezenet1_1-imagenet" in models(served))
    finally:
        ended.set()
        thread.join()
    assert classify(served, "squeezenet1_1-imagenet")["predictions"]
    assert gateways == {before}


def test_bad_models_in_a_new_catalog_do_not_affect_others(
    node: RayNode, document: dict[str, Any], served: httpx.Client, tmp_path: Path
) -> None:
    before = gateway_of(classify(served, "lenet5-mnist"))
    broken, garbled = write_artifact(tmp_path / "broken", "broken"), write_artifact(tmp_path / "garbled", "garbled")
    (broken / "tensor.onnx").unlink()
    garble(garbled)
    bad = [
        {"name": "broken", "artifact": str(broken)},
        {"name": "garbled", "artifact": str(garbled), "placement": "dedicated"},
    ]
    limited = [{"name": "lenet5-mnist", "max_batch": 3}, DEDICATED]
    deploy(node, parse_settings(document | {"models": [*bad, *limited]}), tmp_path)

    def reason(model: str) -> str:
        problems = served.get("/v1/models").json()["problems"]
        return next((str(problem["reason"]) for problem in problems if problem["name"] == model), "")

    wait_until(lambda: "broken/tensor.onnx is missing" in reason("broken"))
    wait_until(lambda: "garbled/image.onnx cannot be loaded" in reason("garbled"))
    wait_until(lambda: served.get("/v2/models/lenet5-mnist/config").json()["max_batch_size"] == 3)
    for entry in bad:
        answer = served.post(f"/v1/models/{entry['name']}/classify", content=DIGIT)
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert reason(entry["name"]) in answer.json()["error"]
    assert gateway_of(classify(served, "lenet5-mnist")) == before
    assert classify(served, "resnet20-cifar10")["predictions"]


def test_a_node_of_the_cluster_is_found_by_its_resources(
    node: RayNode, document: dict[str, Any], served: httpx.Client, tmp_path: Path
) -> None:
    before = gateway_of(classify(served, "lenet5-mnist"))
    changed = document | {"cluster": {"gateway_nodes": 1}, "models": [{"name": "lenet5-mnist"}]}

    def replaced() -> bool:
        try:
            return gateway_of(classify(served, "lenet5-mnist")) != before
        except httpx.TransportError:  # node agent and gateway are replaced at the same time
            return False

    deploy(node, parse_settings(changed), tmp_path)
    wait_until(replaced)
    assert models(served) == {"lenet5-mnist"}
