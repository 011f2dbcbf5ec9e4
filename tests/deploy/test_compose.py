"""docker-compose.yml: its schema, security and health checks. test_compose_commands.py runs its command lines."""

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

OURS = [name for name, service in SERVICES.items() if service["image"].startswith("convoy-")]
SECRET = re.compile(r"^\$\{[A-Z_]+:\?[^}]+\}$")

each = pytest.mark.parametrize("service", SERVICES)


def test_the_file_matches_the_schema(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    misspelled = tmp_path / "docker-compose.yml"
    misspelled.write_text(FILE.read_text().replace("healthcheck:", "healthchecks:"))
    assert subprocess.run([*command, str(misspelled)], capture_output=True, check=False).returncode == 1


def test_the_services_are_complete() -> None:
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
def test_ports_are_published_on_loopback_only(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", ()))


@each
def test_containers_gain_no_privileges(service: str) -> None:
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICES[service]
    if service in OURS:
        assert SERVICES[service]["read_only"]
        assert SERVICES[service]["cap_drop"] == ["ALL"]


@each
def test_permanent_services_have_a_health_check(service: str) -> None:
    assert ("healthcheck" in SERVICES[service]) == ("profiles" not in SERVICES[service])


@each
def test_health_checks_use_no_proxy(service: str) -> None:
    """Docker passes the proxies of its client to containers."""
    if "healthcheck" in SERVICES[service]:
        command = " ".join(health_command(service))
        assert "http://" not in command or "-Y off" in command or "ProxyHandler({})" in command


@each
def test_dependencies_have_a_health_check(service: str) -> None:
    for dependency, options in SERVICES[service].get("depends_on", {}).items():
        assert options["condition"] == "service_healthy"
        assert "healthcheck" in SERVICES[dependency]


@each
def test_mounted_files_exist(service: str) -> None:
    assert all(path.exists() for path in mounted(service).values())


@each
def test_passwords_come_from_the_environment(service: str) -> None:
    for name, value in SERVICES[service].get("environment", {}).items():
        assert "PASSWORD" not in name or SECRET.match(value), name


def test_ports_match_the_configuration() -> None:
    listen = load_settings(REPOSITORY / "deploy" / "compose" / "convoy.yaml").listen
    published = [int(port.rpartition(":")[2]) for port in SERVICES["server"]["ports"]]
    assert published == [listen.http_port, listen.grpc_port, listen.metrics_port]


def test_the_prometheus_configuration_differs_only_in_its_target() -> None:
    ours, shipped = (
        yaml.safe_load((REPOSITORY / "deploy" / folder / "prometheus.yml").read_text())
        for folder in ("compose", "prometheus")
    )
    (our_scrape,), (shipped_scrape,) = ours["scrape_configs"], shipped["scrape_configs"]
    assert our_scrape.pop("static_configs") == [{"targets": ["server:8002"]}]
    assert shipped_scrape.pop("static_configs")
    assert ours == shipped
    assert set(ours["rule_files"]) <= {path.rpartition("/")[2] for path in mounted("prometheus")}


def test_the_grafana_data_source_differs_only_in_its_address() -> None:
    ours, shipped = (
        yaml.safe_load((REPOSITORY / "deploy" / path).read_text())
        for path in ("compose/datasource.yml", "grafana/provisioning/datasources/convoy.yml")
    )
    assert ours["datasources"][0].pop("url") == "http://prometheus:9090"
    assert shipped["datasources"][0].pop("url")
    assert ours == shipped
