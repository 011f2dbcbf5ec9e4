"""docker-compose.yml by its schema and by what it promises; its command lines run in test_compose_commands.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import convoy
from serve.config.loading import load_settings
from tests.conftest import REPOSITORY
from tests.deploy.compose import FILE, SERVICES, health_command, mounted

OURS = [name for name, one in SERVICES.items() if one["image"].startswith("convoy-")]
SECRET = re.compile(r"^\$\{[A-Z_]+:\?[^}]+\}$")

each = pytest.mark.parametrize("service", SERVICES)


def test_the_schema_holds(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    slip = tmp_path / "docker-compose.yml"
    slip.write_text(FILE.read_text().replace("healthcheck:", "healthchecks:"))
    assert subprocess.run([*command, str(slip)], capture_output=True, check=False).returncode == 1


def test_what_there_is() -> None:
    assert set(SERVICES) == {"server", "postgres", "prometheus", "grafana", "load"}
    assert OURS == ["server", "load"]
    assert SERVICES["load"]["profiles"] == ["load"]


@each
def test_images_are_pinned(service: str) -> None:
    tag = SERVICES[service]["image"].rpartition(":")[2]
    assert re.match(r"^v?[0-9]+\.[0-9]+", tag)
    if service in OURS:
        assert tag == convoy.__version__


@each
def test_only_this_machine_can_connect(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", ()))


@each
def test_containers_gain_no_rights(service: str) -> None:
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICES[service]
    if service in OURS:
        assert SERVICES[service]["read_only"]
        assert SERVICES[service]["cap_drop"] == ["ALL"]


@each
def test_what_stays_up_says_whether_it_is_well(service: str) -> None:
    assert ("healthcheck" in SERVICES[service]) == ("profiles" not in SERVICES[service])


@each
def test_no_health_check_asks_a_proxy(service: str) -> None:
    """Docker hands its client's proxies to containers."""
    if "healthcheck" in SERVICES[service]:
        command = " ".join(health_command(service))
        assert "http://" not in command or "-Y off" in command or "ProxyHandler({})" in command


@each
def test_what_is_waited_for_can_be_waited_for(service: str) -> None:
    for other, how in SERVICES[service].get("depends_on", {}).items():
        assert how["condition"] == "service_healthy"
        assert "healthcheck" in SERVICES[other]


@each
def test_what_is_mounted_is_there(service: str) -> None:
    assert all(place.exists() for place in mounted(service).values())


@each
def test_no_password_is_written_down(service: str) -> None:
    for name, value in SERVICES[service].get("environment", {}).items():
        assert "PASSWORD" not in name or SECRET.match(value), name


def test_ports_are_those_of_the_configuration() -> None:
    listen = load_settings(REPOSITORY / "deploy" / "compose" / "convoy.yaml").listen
    published = [int(port.rpartition(":")[2]) for port in SERVICES["server"]["ports"]]
    assert published == [listen.http_port, listen.grpc_port, listen.metrics_port]


def test_prometheus_is_the_shipped_one_but_for_its_target() -> None:
    ours, shipped = (
        yaml.safe_load((REPOSITORY / "deploy" / folder / "prometheus.yml").read_text())
        for folder in ("compose", "prometheus")
    )
    (scrape,), (elsewhere,) = ours["scrape_configs"], shipped["scrape_configs"]
    assert scrape.pop("static_configs") == [{"targets": ["server:8002"]}]
    assert elsewhere.pop("static_configs")
    assert ours == shipped
    assert set(ours["rule_files"]) <= {place.rpartition("/")[2] for place in mounted("prometheus")}


def test_grafanas_source_is_the_shipped_one_but_for_its_address() -> None:
    ours, shipped = (
        yaml.safe_load((REPOSITORY / "deploy" / path).read_text())
        for path in ("compose/datasource.yml", "grafana/provisioning/datasources/convoy.yml")
    )
    assert ours["datasources"][0].pop("url") == "http://prometheus:9090"
    assert shipped["datasources"][0].pop("url")
    assert ours == shipped
