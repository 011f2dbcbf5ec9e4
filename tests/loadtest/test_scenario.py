"""Scenarios: the bundled ones, durations, and errors in scenario files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from convoy.errors import ConfigError
from loadtest.plan import Feedback
from loadtest.scenario import known_scenarios, load_scenario, parse_scenario, scale, seconds

EXPECTED = {
    "steady", "burst", "overload-x2", "overload-x5", "many-models", "ab-feedback", "large-photos", "tiny-digits",
    "slow-clients", "mixed-priorities", "soak",
}  # fmt: skip
SMALLEST: dict[str, Any] = {"name": "x", "traffic": [{"model": "m"}], "load": {"rate": 5}}


def test_every_bundled_scenario_describes_its_purpose() -> None:
    assert set(known_scenarios()) == EXPECTED
    for name in EXPECTED:
        found = load_scenario(name)
        assert found.plan.name == name
        assert len(found.about) > 60


def test_bundled_scenarios_match_their_names() -> None:
    assert load_scenario("overload-x2").plan.load.steps[0].rate == 2
    assert load_scenario("overload-x5").plan.load.steps[0].rate == 5
    assert load_scenario("burst").plan.load.process == "gamma"
    assert load_scenario("ab-feedback").plan.feedback == Feedback()
    assert {traffic.priority for traffic in load_scenario("mixed-priorities").plan.traffic} == {1, 2}
    assert any(traffic.upload_bytes_per_s for traffic in load_scenario("slow-clients").plan.traffic)
    assert load_scenario("soak").plan.duration_s == 3600


def test_rates_as_multiples_of_the_capacity_are_scaled() -> None:
    found = load_scenario("overload-x2", "http://127.0.0.1:9")
    assert found.of_capacity
    assert found.plan.target.url == "http://127.0.0.1:9"
    assert scale(found.plan, 150.0).load.steps[0].rate == 300


@pytest.mark.parametrize(
    ("text", "value"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), (4, 4), ("1.5", 1.5)]
)
def test_durations_are_parsed_to_seconds(text: object, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "5 days", "1.2.3s", None])
def test_invalid_durations_are_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="no duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"durration": "5s"}, "did you mean 'duration'"),
        ({"traffic": [{"modle": "m"}]}, "did you mean 'model'"),
        ({"traffic": [{"weight": 1}]}, "needs a model"),
        ({"traffic": []}, "at least one kind of traffic"),
        ({"traffic": "m"}, "must be a list"),
        ({"load": {"rate": "fast"}}, "neither requests per second"),
        ({"load": {"steps": [{"rate": "2x", "seconds": 1}, {"rate": 5, "seconds": 1}]}}, "all multiples"),
        ({"load": {"rate": 5, "concurrency": 2}}, "a load is one of"),
        ({"load": {}}, "a load is one of"),
        ({"load": {"recorded": "nowhere.txt"}}, "load.recorded"),
        ({"target": {"url": "ftp://x:1"}}, "no http://HOST:PORT"),
        ({"target": {"protocol": "soap"}}, "protocol: input should be 'classify', .*, not 'soap'"),
        ({"target": {"keep_alive": "yes"}}, "keep_alive: input should be a valid boolean, not 'yes'"),
        ({"traffic": [{"model": "m", "weight": "big"}]}, "weight: input should be a valid number, not 'big'"),
        ({"traffic": [{"model": "m", "payload": {"kind": "folder"}}]}, "needs `folder`"),
        ({"traffic": [{"model": "m", "payload": {"side": 0}}]}, "at least 1"),
        ({"workers": 0}, "workers"),
        ({"seed": -1}, "seed must not be negative"),
        ({"deadline_ms": "soon"}, "deadline_ms: input should be a valid number, not 'soon'"),
        ({"probe_concurrency": "x"}, "probe_concurrency: input should be a valid integer, not 'x'"),
        ({"seed": True}, "seed: input should be a valid integer, not True"),
        ({"workers": 2.0}, "workers: input should be a valid integer, not 2.0"),
        ({"deadline_ms": "5"}, "deadline_ms: input should be a valid number, not '5'"),
        ({1: 2}, "unknown key '1'"),
        ({"target": {"timeout_s": True}}, "timeout_s: input should be a valid number, not True"),
        ({"traffic": [{"model": "m", "weight": float("nan")}]}, "weight and batch must be positive"),
        ({"probe_concurrency": 0}, "at least 1"),
        ({"load": {"rate": 5, "process": "possion"}}, "did you mean 'poisson'"),
        ({"load": {"rate": float("nan")}}, "rates must be numbers"),
        ({"target": {"headers": ["x"]}}, "mapping of names to values"),
        ({"target": {"url": "http://me:secret@127.0.0.1:1"}}, "send it with --header"),
        ({"traffic": [{"model": "m", "priority": "high"}]}, "priority: input should be a valid integer, not 'high'"),
        (
            {"traffic": [{"model": "m", "payload": {"format": "gif"}}]},
            "format: input should be 'jpeg' or 'png', not 'gif'",
        ),
        ({"traffic": [{"model": "m", "payload": {"shape": 3}}]}, "must be a list"),
        (
            {"traffic": [{"model": "m", "payload": {"shape": ["x"]}}]},
            r"shape\.0: input should be a valid integer, not 'x'",
        ),
        ({"feedback": {"share": 2}}, "between 0 and 1"),
        ({"feedback": {"delay_s": float("nan")}}, "delay_s not negative"),
        ({"deadline_ms": -1}, "deadline_ms must be positive"),
        ({"deadline_ms": float("nan")}, "deadline_ms must be positive"),
        ({"duration": "9" * 400}, "both finite"),
        ({"duration": "q" * 10**6}, "^'q{40}' is no duration"),
        ({"load": {"rate": "q" * 10**6}}, "^rate 'q{40}' is neither"),
        ({"feedback": {"path": "/f", "when": 1}}, "feedback: unknown key 'when'; known: path"),
        ({"feedback": {}, "target": {"url": "grpc://127.0.0.1:1", "protocol": "grpc"}}, "feedback is an HTTP request"),
    ],
)
def test_invalid_scenarios_are_refused_with_the_reason(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_scenario({**SMALLEST, **change}, None, Path())


def test_paths_are_relative_to_the_scenario_and_errors_name_its_file(tmp_path: Path) -> None:
    (tmp_path / "times.txt").write_text("0\n0.5\n2\n")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**SMALLEST, "load": {"recorded": "times.txt"}}))
    assert load_scenario(str(file)).plan.load.recorded == (0.0, 0.5, 2.0)
    assert load_scenario(str(file)).plan.duration_s == 2.0
    file.write_text("name: [")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_scenario(str(file))
    with pytest.raises(ConfigError, match="did you mean steady"):
        load_scenario("staedy")
