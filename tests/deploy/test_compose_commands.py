"""The command lines of docker-compose.yml as processes: the server starts, is healthy, takes load, is scraped, and drains."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve.config.loading import load_settings, parse_settings
from serve.config.schema import Settings
from tests.deploy.compose import SERVICES, environment, health_command, here, mounted, process
from tests.deploy.ray_node import wait_until

pytestmark = pytest.mark.slow  # starts its own server

CONFIG = "/etc/convoy/convoy.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compose")


@pytest.fixture(scope="module")
def settings(folder: Path, free_ports: Callable[[int], list[int]]) -> Settings:
    """The container's configuration, on ports of this machine."""
    http_port, grpc_port, metrics_port = free_ports(3)
    listen = {"host": "127.0.0.1", "http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    contained = load_settings(mounted("server")[CONFIG])
    ledger = contained.ledger.model_dump() | {"url": f"sqlite:///{folder / 'ledger.db'}"}
    local = {"listen": listen, "runtime_dir": str(folder / "node"), "ledger": ledger}
    return parse_settings(contained.model_dump() | local)


@pytest.fixture(scope="module")
def places(folder: Path, settings: Settings, free_ports: Callable[[int], list[int]]) -> dict[str, object]:
    """Addresses and paths on this machine, by those in the containers."""
    config = folder / "convoy.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    addresses = {
        "server:8000": f"127.0.0.1:{settings.listen.http_port}",
        "server:8002": f"127.0.0.1:{settings.listen.metrics_port}",
        "127.0.0.1:8000": f"127.0.0.1:{settings.listen.http_port}",
    }
    return addresses | {CONFIG: config}


@pytest.fixture(scope="module")
def server(folder: Path, settings: Settings, places: dict[str, object]) -> Iterator[None]:
    with process(here(SERVICES["server"]["command"], places), folder, "server") as started:
        url = f"http://127.0.0.1:{settings.listen.http_port}{health_path('server')}"
        wait_until(lambda: answers(url) or started.poll() is not None)
        yield
    assert "draining" in (folder / "server.log").read_text()


@pytest.mark.usefixtures("server")
def test_the_health_check_succeeds_only_with_a_server(
    places: dict[str, object], free_ports: Callable[[int], list[int]]
) -> None:
    command = here(health_command("server"), places)
    assert subprocess.run(command, env=environment(), timeout=60, check=False).returncode == 0
    (closed_port,) = free_ports(1)
    without_server = here(health_command("server"), {"127.0.0.1:8000": f"127.0.0.1:{closed_port}"})
    assert (
        subprocess.run(without_server, env=environment(), timeout=60, check=False, capture_output=True).returncode == 1
    )


@pytest.mark.usefixtures("server")
def test_the_load_generator_gets_answers(folder: Path, places: dict[str, object]) -> None:
    command = here(SERVICES["load"]["command"], places | {"60s": "3s"})
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    # 3: the machine was too busy for trustworthy figures, but the server has answered.
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "HTTP 200" in done.stdout


@pytest.mark.usefixtures("server")
def test_prometheus_scrapes_the_server(
    folder: Path, places: dict[str, object], free_ports: Callable[[int], list[int]]
) -> None:
    for name, path in mounted("prometheus").items():
        text = path.read_text()
        for address, local in places.items():
            text = text.replace(address, str(local))
        (folder / Path(name).name).write_text(text)
    (port,) = free_ports(1)
    paths: dict[str, object] = {"/etc/prometheus": folder, "=/prometheus": f"={folder / 'data'}"}
    command = ["prometheus", *here(SERVICES["prometheus"]["command"], paths)]
    url = f"http://127.0.0.1:{port}"
    with process([*command, f"--web.listen-address=127.0.0.1:{port}"], folder, "prometheus"):
        wait_until(lambda: answers(f"{url}{health_path('prometheus')}"))
        wait_until(lambda: bool(series(url, 'up{job="convoy"} == 1')))


def health_path(service: str) -> str:
    """The path that a health check requests."""
    (path,) = re.findall(r"http://127\.0\.0\.1:\d+([^'\s]+)", health_command(service)[-1])
    return str(path)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def series(url: str, query: str) -> list[Any]:
    found: list[Any] = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=5).json()["data"]["result"]
    return found
