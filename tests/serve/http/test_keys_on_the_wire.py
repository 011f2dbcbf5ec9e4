"""API keys on the wire: every path and gRPC method refuses requests without a key, or beyond the rights of their key."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from starlette.routing import Mount, Route

from convoy.client import Client, Credentials
from convoy.client.retries import Retries
from convoy.credentials import digest, new_key
from convoy.errors import ConvoyError, Forbidden, Unauthenticated
from convoy.protos import classifier_pb2 as classifier_pb
from convoy.protos import experiments_pb2 as experiments_pb
from convoy.protos import open_inference_pb2 as inference_pb
from convoy.protos.classifier_pb2_grpc import ClassifierStub
from models.artifact import BUNDLED
from serve.config.schema import Settings
from serve.gateway.request_tracker import RequestTracker
from serve.grpc.server import INFERENCE
from serve.http.app import HTTP
from serve.http.auth import OPEN, OPEN_FOLDERS
from serve.http.experiment_routes import experiment_routes
from serve.http.routes import cold_routes
from serve.telemetry.definitions import SHED
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.serve.listeners import Serving, StartGateway
from tests.waiting import until

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
CLASSIFY = "/v1/models/lenet5-mnist/classify"
KEYS = {name: new_key() for name in ("admin", "shop", "slow", "single")}
SERVICES = (
    classifier_pb.DESCRIPTOR.services_by_name["Classifier"],
    experiments_pb.DESCRIPTOR.services_by_name["Experiments"],
    inference_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
ONE_TRY = Retries(tries=1)
OPEN_METHODS = {f"/{INFERENCE}/ServerLive", f"/{INFERENCE}/ServerReady"}
CHANGES = {
    ("POST", "/v2/repository/models/{name}/load"),
    ("POST", "/v2/repository/models/{name}/unload"),
    ("POST", "/v1/experiments"),
    ("POST", "/v1/experiments/{name}/ramp"),
    ("POST", "/v1/experiments/{name}/stop"),
    ("POST", "/v1/experiments/{name}/promote"),
}
OVERVIEWS = {
    ("GET", path) for path in ("/v1/explain", "/v1/profile", "/v1/vitals", "/v1/scrape-targets", "/v2/models/stats")
}


def entry(name: str, **rights: Any) -> dict[str, Any]:
    return {"name": name, "sha256": digest(KEYS[name]).hex(), **rights}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    models = [{"name": "lenet5-mnist"}, {"name": "resnet20-cifar10"}]
    keys = [
        entry("admin", admin=True),
        entry("shop", models=["lenet5-mnist"]),
        entry("slow", rate=0.01),
        entry("single", concurrency=1),
    ]
    with start_gateway(models=models, keys=keys) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def http(gateway: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=30) as client:
        yield client


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


def concrete(path: str) -> str:
    """A path with values for its placeholders."""
    return (
        path.replace("{name}", "resnet20-cifar10").replace("{version}", "1").replace("profile", "profile?seconds=0.1")
    )


def cold(gateway: Serving) -> list[tuple[str, str]]:
    """Methods and paths of the cold routes."""
    found = []
    tracker = RequestTracker(gateway.plane, gateway.metrics, HTTP)
    for route in cold_routes(gateway.plane, gateway.repository, Settings(), tracker, None):
        assert isinstance(route, Route | Mount)
        if isinstance(route, Route):
            found += [(method, route.path) for method in route.methods or () if method != "HEAD"]
    return found


def test_every_path_except_health_and_the_page_needs_a_key(gateway: Serving, http: httpx.Client) -> None:
    for method, path in cold(gateway):
        answer = http.request(method, concrete(path))
        if path in OPEN or path.startswith(OPEN_FOLDERS):
            assert answer.is_success, path
        else:
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert "x-api-key" in answer.json()["error"]


def test_an_unknown_key_is_refused(http: httpx.Client) -> None:
    for headers in ({"authorization": f"Bearer {new_key()}"}, {"x-api-key": "x" * 10_000}, {"x-api-key": ""}):
        assert http.post(CLASSIFY, content=DIGIT, headers=headers).status_code == 401


def test_changes_and_overviews_need_an_admin_key(gateway: Serving, http: httpx.Client) -> None:
    routes = set(cold(gateway))
    assert routes >= CHANGES | OVERVIEWS
    for method, path in CHANGES | OVERVIEWS:
        refused = http.request(method, concrete(path), headers=bearer("single"), json={})
        assert refused.status_code == 403, path
        allowed = http.request(method, concrete(path), headers=bearer("admin"), json={}, timeout=30)
        assert allowed.status_code not in (401, 403), path


def test_every_change_of_experiments_needs_an_admin_key(gateway: Serving) -> None:
    posts = {
        ("POST", route.path) for route in experiment_routes(gateway.plane, None) if "POST" in (route.methods or ())
    }
    assert posts - CHANGES == {("POST", "/v1/feedback")}


def test_a_key_may_call_and_see_only_its_models(http: httpx.Client) -> None:
    shop = bearer("shop")
    assert http.post(CLASSIFY, content=DIGIT, headers=shop).status_code == 200
    for path in (
        "/v1/models/resnet20-cifar10/classify",
        "/v2/models/resnet20-cifar10/infer",
        "/v1/models/none:predict",
    ):
        answer = http.post(path, content=DIGIT, headers=shop)
        assert answer.status_code == 403, path
    for path in ("/v2/models/resnet20-cifar10", "/v2/models/resnet20-cifar10/stats", "/v2/models/none/ready"):
        assert http.get(path, headers=shop).status_code == 403, path
    assert "resnet20" not in http.get("/v1/models", headers=shop).text
    assert "resnet20" not in http.get("/v2/models", headers=shop).text
    assert "resnet20" not in http.get("/openapi.json", headers=shop).text
    assert "resnet20" not in http.post("/v2/repository/index", headers=shop).text


def test_a_rate_is_enforced(gateway: Serving, http: httpx.Client) -> None:
    first, second = (http.post(CLASSIFY, content=DIGIT, headers=bearer("slow")) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert 1 <= int(second.headers["retry-after"]) <= 100
    client = Client(gateway.grpc, ONE_TRY, Credentials(KEYS["slow"]))
    with client, pytest.raises(ConvoyError, match="a second") as caught:  # both protocols share the quota
        client.classify("lenet5-mnist", DIGIT)
    assert getattr(caught.value, "retry_after_s", 0) >= 1


def test_a_concurrency_limit_is_enforced_and_released(http: httpx.Client) -> None:
    def ask(_: int) -> int:
        return http.post(CLASSIFY, content=DIGIT, headers=bearer("single")).status_code

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        codes = set(pool.map(ask, range(64)))
    assert codes == {200, 429}
    assert ask(0) == 200


@pytest.mark.parametrize("attribute", ["http", "grpc"])
def test_the_client_sends_its_key(gateway: Serving, attribute: str) -> None:
    url = getattr(gateway, attribute)
    with Client(url, ONE_TRY, Credentials(KEYS["shop"])) as client:
        assert client.classify("lenet5-mnist", DIGIT, top_k=1).predictions[0].classes[0].label == "7"
        assert [model.name for model in client.models()] == ["lenet5-mnist"]
        with pytest.raises(Forbidden):
            client.classify("resnet20-cifar10", DIGIT)
    with Client(url, ONE_TRY) as without_key:
        assert without_key.ready()
        with pytest.raises(Unauthenticated):
            without_key.classify("lenet5-mnist", DIGIT)


def methods() -> list[Any]:
    return [method for service in SERVICES for method in service.methods]


def call(channel: grpc.Channel, method: Any, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    """The status of a call with an empty message."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.client_streaming:
            list(channel.stream_stream(path, None, None)(iter([b""]), metadata=metadata, timeout=30))
        else:
            channel.unary_unary(path, None, None)(b"", metadata=metadata, timeout=30)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_every_grpc_method_except_health_needs_a_key(gateway: Serving) -> None:
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        for method in methods():
            path = f"/{method.containing_service.full_name}/{method.name}"
            for metadata in ((), (("authorization", f"Bearer {new_key()}"),)):
                expected = "OK" if path in OPEN_METHODS else "UNAUTHENTICATED"
                assert call(channel, method, metadata).name == expected, path


def test_repository_changes_over_grpc_need_an_admin_key(gateway: Serving) -> None:
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        changes = [method for method in methods() if method.name in ("RepositoryModelLoad", "RepositoryModelUnload")]
        assert len(changes) == 2
        for method in changes:
            assert call(channel, method, tuple(bearer("shop").items())) is grpc.StatusCode.PERMISSION_DENIED
            assert call(channel, method, tuple(bearer("admin").items())) is grpc.StatusCode.NOT_FOUND


def test_each_request_of_a_stream_is_checked(gateway: Serving) -> None:
    requests = [
        classifier_pb.ClassifyRequest(model=name, images=[DIGIT]) for name in ("lenet5-mnist", "resnet20-cifar10")
    ]
    with grpc.insecure_channel(gateway.grpc.removeprefix("grpc://")) as channel:
        stub = ClassifierStub(channel)  # type: ignore[no-untyped-call]
        answers = list(stub.ClassifyStream(iter(requests), metadata=tuple(bearer("shop").items())))
    assert [bool(answer.error) for answer in answers] == [False, True]


def test_a_refusal_is_counted(gateway: Serving, http: httpx.Client) -> None:
    statuses = [http.post(CLASSIFY, content=DIGIT, headers=bearer("slow")).status_code for _ in range(3)]
    assert 429 in statuses
    folder = gateway.metrics.folder
    until(lambda: any(dict(labels)["reason"] == "quota" for labels in total(read_files(folder))[SHED.name]))
