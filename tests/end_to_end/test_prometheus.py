"""A real Prometheus with the shipped configuration scrapes a running server: no panel, rule or alert lacks data."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve.config.schema import Settings
from tests.conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
PATIENCE_SECONDS = 150  # alerts use ranges of minutes, and the first minute may be missed during the start
COMPARISON = re.compile(r"(?<![=!<>~])(==|!=|<=|>=|<|>)(?![=~])(?=\s*[^\"])")
PLACEHOLDERS = {"$model": ".*", "$experiment": ".*", "$instance": ".*", "$__range": "5m"}


def rules(file: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / file).read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> dict[str, str]:
    """The queries of all dashboards, by dashboard and panel, with Grafana's variables set to "all"."""
    queries = {}
    for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"]
                for name, value in PLACEHOLDERS.items():
                    expression = expression.replace(name, value)
                queries[f"{file.stem}: {panel['title']} {target['refId']}"] = expression
    return queries


def without_comparison(expression: str) -> str:
    """The expression of an alert with comparisons as 0 or 1, so that it is empty only without data."""
    return COMPARISON.sub(r"\1 bool ", expression)


@pytest.fixture(scope="module")
def prometheus(
    server: Settings, tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]
) -> Iterator[httpx.Client]:
    """Prometheus with the shipped files; only addresses and intervals differ."""
    folder = tmp_path_factory.mktemp("prometheus")
    document = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    document["rule_files"] = [str(DEPLOY / "prometheus" / file) for file in document["rule_files"]]
    (scrape,) = document["scrape_configs"]
    port, gone = free_ports(2)
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{server.listen.metrics_port}", f"127.0.0.1:{gone}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def traffic(http: httpx.Client, samples: Path) -> Iterator[None]:
    """Sends requests during the tests that are answered, refused, late or cancelled."""
    digit, photo = (samples / "mnist-0-7.png").read_bytes(), (samples / "chelsea.png").read_bytes()
    stopped = threading.Event()

    def send() -> None:
        while not stopped.is_set():
            http.post("/v1/models/lenet5-mnist/classify", content=digit)
            http.post("/v1/models/digits/classify", content=digit)
            http.post("/v1/models/squeezenet1_1-imagenet/classify", content=photo)
            http.post("/v1/models/lenet5-mnist/classify", content=b"no image")
            http.post("/v1/models/slow/classify", content=digit, headers={"x-request-timeout-ms": "1"})
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/models/slow/classify", content=digit, timeout=0.02)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    stopped.set()
    thread.join()


def ask(prometheus: httpx.Client, expression: str) -> list[Any]:
    """The current series of an expression; none while Prometheus starts. An invalid expression fails the test."""
    try:
        answer = prometheus.get("/query", params={"query": expression})
    except httpx.TransportError:
        return []
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # still replaying its log
        return []
    document = answer.json()
    assert document["status"] == "success", f"{expression}: {document.get('error')}"
    series: list[Any] = document["data"]["result"]
    return series


def wait_for_data(prometheus: httpx.Client, queries: dict[str, str]) -> dict[str, str]:
    """The queries that are still empty after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    empty = dict(queries)
    while empty and time.monotonic() < end:
        empty = {place: expression for place, expression in empty.items() if not ask(prometheus, expression)}
        time.sleep(0.5)
    return empty


@pytest.mark.usefixtures("traffic")
def test_every_panel_shows_data(prometheus: httpx.Client) -> None:
    assert wait_for_data(prometheus, panels()) == {}


@pytest.mark.usefixtures("traffic")
def test_every_recording_rule_records(prometheus: httpx.Client) -> None:
    assert wait_for_data(prometheus, {rule["record"]: rule["record"] for rule in rules("recording.yml")}) == {}


@pytest.mark.usefixtures("traffic")
def test_every_alert_has_data(prometheus: httpx.Client) -> None:
    alerts = {rule["alert"]: without_comparison(rule["expr"]) for rule in rules("alerts.yml")}
    assert wait_for_data(prometheus, alerts) == {}


@pytest.mark.usefixtures("traffic")
def test_prometheus_accepts_the_metrics_and_every_rule(prometheus: httpx.Client) -> None:
    assert wait_for_data(prometheus, {"up": 'up{job="convoy"} == 1'}) == {}
    for group in prometheus.get("/rules").json()["data"]["groups"]:
        for rule in group["rules"]:
            assert rule["health"] in ("ok", "unknown"), rule


@pytest.mark.usefixtures("traffic")
def test_an_alert_fires_only_for_the_unreachable_target(prometheus: httpx.Client, server: Settings) -> None:
    assert wait_for_data(prometheus, {"alert": 'ALERTS{alertname="ConvoyDown"}', "up": "up == 1"}) == {}
    (alert,) = [
        entry
        for entry in prometheus.get("/alerts").json()["data"]["alerts"]
        if entry["labels"]["alertname"] == "ConvoyDown"
    ]
    assert alert["labels"]["instance"] != f"127.0.0.1:{server.listen.metrics_port}"
    assert "does not answer" in alert["annotations"]["summary"]
    assert "look at the node" in alert["annotations"]["remedy"]


@pytest.mark.usefixtures("traffic")
def test_the_parts_of_the_energy_add_up_for_every_chip(prometheus: httpx.Client) -> None:
    accounted = "sum by (chip) (convoy_energy_joules_total) / on (chip) sum by (chip) (convoy_chip_energy_joules_total)"
    assert wait_for_data(prometheus, {"accounted": accounted}) == {}
    for series in ask(prometheus, accounted):
        assert float(series["value"][1]) == pytest.approx(1, abs=0.02)


@pytest.mark.usefixtures("traffic")
def test_energy_is_attributed_to_the_model_that_runs(prometheus: httpx.Client) -> None:
    query = 'sum by (model) (convoy_energy_joules_total{part="model", model="squeezenet1_1-imagenet"}) > 0'
    assert wait_for_data(prometheus, {"attributed": query}) == {}
