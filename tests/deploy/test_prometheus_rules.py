"""The shipped Prometheus configuration and rules, checked by promtool."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "prometheus"


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("file", sorted(FOLDER.glob("tests/*.yml")), ids=lambda file: file.stem)
def test_rules_pass_their_own_tests(file: object) -> None:
    promtool("test", "rules", str(file))


def test_every_alert_fires_in_a_test_and_has_a_remedy() -> None:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    alerts = {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}
    fired = set()
    for file in FOLDER.glob("tests/*.yml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            fired |= {case["alertname"] for case in test.get("alert_rule_test", ()) if case.get("exp_alerts")}
    assert fired == set(alerts)
    for rule in alerts.values():
        assert set(rule["annotations"]) == {"summary", "remedy"}
