"""The examples of docs/metrics.md, docs/energy.md and docs/atlas.md work, and the metrics page is complete."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest
import yaml

from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.telemetry.definitions import DEFINITIONS
from tests.conftest import REPOSITORY
from tests.end_to_end.test_load import scrape
from tests.snippets import Snippet, snippets

METRICS = (REPOSITORY / "docs" / "metrics.md").read_text()
SHELL = [snippet for page in ("metrics", "energy") for snippet in snippets(f"docs/{page}.md", "bash")]


def wait_for_metric(server: Settings, name: str) -> None:
    """Waits for a metric: the node agent measures for the first time a second after its start."""
    end = time.monotonic() + 20
    while not any(found == name for found, _ in scrape(server)):
        assert time.monotonic() < end, f"no {name}"
        time.sleep(0.05)


@pytest.mark.parametrize("snippet", SHELL, ids=str)
def test_a_command_works(http: httpx.Client, server: Settings, samples: Path, snippet: Snippet, tmp_path: Path) -> None:
    http.post("/v1/models/lenet5-mnist/classify", content=(samples / "mnist-0-7.png").read_bytes())
    wait_for_metric(server, "convoy_chip_energy_joules_total")
    snippet.run(server.listen, REPOSITORY, XDG_DATA_HOME=str(tmp_path))


@pytest.mark.slow
def test_the_commands_of_the_atlas_page_work(server: Settings, tmp_path: Path) -> None:
    """The second command uses the measurements of the first."""
    for snippet in snippets("docs/atlas.md", "bash"):
        snippet.run(server.listen, REPOSITORY, XDG_DATA_HOME=str(tmp_path))


def test_the_declared_power_is_valid_configuration() -> None:
    for snippet in snippets("docs/energy.md", "yaml"):
        assert parse_settings(yaml.safe_load(snippet.text)).power.declared


def test_the_page_lists_exactly_the_defined_metrics() -> None:
    named = set(re.findall(r"\bconvoy_[a-z_]+\b", METRICS))
    defined = {metric.name + ("_total" if metric.kind == "counter" else "") for metric in DEFINITIONS.values()}
    assert named == defined


def test_every_alert_is_on_the_page() -> None:
    document = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert all(rule["alert"] in METRICS for group in document["groups"] for rule in group["rules"])
