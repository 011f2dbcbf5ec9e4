"""`convoy up` of a user with an empty home, whose environment names a proxy that answers nothing."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from convoy.credentials import LOCAL_KEY, read_key
from models.artifact import BUNDLED
from tests.conftest import REPOSITORY
from tests.deploy.compose import SERVICES
from tests.proxies import CountingProxy, counting_proxy
from tests.strangers import CONVOY, Stranger, stranger
from tests.waiting import until

pytestmark = pytest.mark.slow  # starts its own server

PATIENCE_SECONDS = 180.0
DEDICATED, BUILT = (
    "lenet5-mnist",
    "nin-cifar10",
)  # called over Serve's gRPC; served by an engine that a process of its own builds
DIGIT = str(BUNDLED / "samples" / "mnist-0-7.png")
COLLECTOR = "http://collector.invalid:4318/v1/traces"  # elsewhere, so that the user's proxy is the way to it


@dataclass(frozen=True)
class Up:
    """The server, the user who started it, and the proxy that it must not use."""

    user: Stranger
    proxy: CountingProxy
    ports: dict[str, int]
    node: Path

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports['http_port']}"

    @property
    def client(self) -> httpx.Client:
        """A client whose own environment has no proxy."""
        return httpx.Client(base_url=self.http, timeout=60)

    @property
    def strays(self) -> list[str]:
        """Requests that went to the proxy, without those to the trace collector."""
        return [asked for asked in self.proxy.asked if COLLECTOR not in asked]


@pytest.fixture(scope="module")
def up(free_ports: Callable[[int], list[int]]) -> Iterator[Up]:
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    ray_too = {"RAY_grpc_enable_http_proxy": "1"}  # which Ray's own channels heed
    with counting_proxy() as proxy, stranger(**proxy.everywhere, **ray_too) as user:
        one = Up(user, proxy, ports, user.temporary / "node")
        document = {
            "listen": ports,
            "runtime_dir": str(one.node),
            "models": [{"name": DEDICATED, "placement": "dedicated"}, {"name": BUILT, "engine": "openvino"}],
            "tracing": {"endpoint": COLLECTOR, "sample": 1.0},
        }
        config = user.temporary.parent / "convoy.yaml"
        config.write_text(yaml.safe_dump(document))
        log = user.temporary.parent / "log"
        with log.open("w") as out:
            command = [*CONVOY, "up", "--config", str(config)]
            process = subprocess.Popen(command, cwd=REPOSITORY, env=user.environment, stdout=out, stderr=out)
        try:
            with one.client as client:
                until(lambda: process.poll() is not None or ready(client), PATIENCE_SECONDS)
            yield one
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # it hangs in its start
                process.kill()
                process.wait()
        assert process.returncode == 0, log.read_text()
        assert one.strays == []
        assert user.left(".cache/convoy", "node", "ray") == []


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").is_success
    except httpx.TransportError:
        return False


def engine_of(client: httpx.Client, model: str) -> str:
    served = {entry["name"]: entry["engine"] for entry in client.get("/v1/models").raise_for_status().json()["models"]}
    return str(served[model]).partition(" ")[0]


def test_hosts_answer_and_commands_reach_the_server(up: Up) -> None:
    for url in (up.http, f"grpc://127.0.0.1:{up.ports['grpc_port']}"):
        assert "7" in up.user.run(*CONVOY, "classify", DIGIT, "-m", DEDICATED, "--url", url)
    assert DEDICATED in up.user.run(*CONVOY, "explain", "--live", "--seconds", "0.2", "--url", up.http)
    assert up.strays == []


def test_the_health_check_of_the_container_succeeds(up: Up) -> None:
    command = [word.replace("8000", str(up.ports["http_port"])) for word in SERVICES["server"]["healthcheck"]["test"]]
    up.user.run(*command[1:])
    assert up.strays == []


def test_an_engine_is_built_and_a_model_unloaded(up: Up) -> None:
    with up.client as client:
        until(lambda: engine_of(client, BUILT) == "openvino", PATIENCE_SECONDS)
        admin = {"x-api-key": read_key(up.node / LOCAL_KEY)}
        assert client.post(f"/v2/repository/models/{BUILT}/unload", headers=admin).status_code == httpx.codes.OK
    assert up.strays == []


def test_other_machines_are_reached_through_the_users_proxy(up: Up) -> None:
    until(lambda: f"POST {COLLECTOR} HTTP/1.1" in up.proxy.asked)
