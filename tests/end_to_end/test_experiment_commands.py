"""`convoy experiment` with a running server, from the start of an experiment to the export of its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner, Result

from convoy.cli import main
from convoy.credentials import LOCAL_KEY
from serve.config.schema import Settings
from tests.end_to_end.test_experiments import classify, samples
from tests.waiting import until

DEFINITION = """
name: nightly
mode: canary
ramp: [20, 60, 100]
arms:
  - {name: old, model: quadrants-a}
  - {name: new, model: quadrants-b}
"""


class Convoy:
    """Runs commands with the admin key of a server."""

    def __init__(self, server: Settings) -> None:
        self._who = ["--key-file", str(server.node_dir / LOCAL_KEY)]
        self._where = ["--url", f"http://127.0.0.1:{server.listen.http_port}"]

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, [*self._who, "experiment", *words, *self._where])

    def refused(self, *words: str) -> str:
        done = self.run(*words)
        assert done.exit_code == 1, done.output
        return done.output

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.exit_code == 0, done.output
        return done.output

    def status(self, name: str) -> dict[str, Any]:
        return next(entry for entry in json.loads(self("status", "--json")) if entry["name"] == name)


def priced(http: httpx.Client) -> bool:
    """Sends one request. Returns whether the energy of both arms is known, so that later requests are counted in joules."""
    classify(http, "nightly", 0)
    return all(arm["energy"] for arm in http.get("/v1/experiments/nightly/report").json()["arms"])


@pytest.fixture
def convoy(server: Settings) -> Convoy:
    return Convoy(server)


def test_an_experiment_from_start_to_export(
    http: httpx.Client, server: Settings, convoy: Convoy, tmp_path: Path
) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(DEFINITION)
    assert convoy("start", str(file)) == "nightly is running, revision 1\n"
    until(lambda: classify(http, "nightly", 0).status_code == 200)
    assert "old 80.0%, new 20.0%" in convoy("status")

    assert convoy("ramp", "nightly") == "done\n"
    until(lambda: convoy.status("nightly")["shares"] == {"old": 0.4, "new": 0.6})
    assert convoy("ramp", "nightly", "--percent", "20") == "done\n"
    assert "50 is no step of nightly; its ramp is 20, 60, 100" in convoy.refused("ramp", "nightly", "--percent", "50")

    until(lambda: priced(http))
    for number in range(40):
        assert classify(http, "nightly", number % 4, id=f"night-{number}").status_code == 200
    items = [{"id": f"night-{number}", "label": number % 4} for number in range(40)]
    assert http.post("/v1/feedback", json={"feedback": items}).status_code == 202
    until(lambda: samples(http, "nightly") == 40)
    shown = convoy("report", "nightly")
    assert "Undecided" in shown
    assert "declared, estimated" in shown
    assert "calibration error" in shown
    assert "bottom left" in shown
    assert json.loads(convoy("report", "nightly", "--json"))["classes"][0]["label"] in shown

    assert convoy("promote", "nightly", "new") == "done\n"
    until(lambda: {classify(http, "nightly", 0).json()["arm"] for _ in range(5)} == {"new"})
    assert convoy.status("nightly")["state"] == "promoted"
    assert "no arm 'newest'" in convoy.refused("promote", "nightly", "newest")
    assert convoy("stop", "nightly") == "done\n"
    until(lambda: {classify(http, "nightly", 0).json()["arm"] for _ in range(5)} == {"old"})
    assert convoy.status("nightly")["state"] == "stopped"
    assert "unknown experiment" in convoy.refused("stop", "nighty")

    out = tmp_path / "nightly.parquet"
    done = CliRunner().invoke(main, ["experiment", "export", "nightly", str(out), "--ledger", server.ledger_url])
    assert done.exit_code == 0, done.output
    rows = {row["request_id"]: row for row in parquet.read_table(out).to_pylist()}
    assert f"{len(rows):,} rows in {out}" in done.output
    assert [rows[f"night-{number}"]["label"] for number in range(40)] == [number % 4 for number in range(40)]
    assert {row["arm"] for row in rows.values()} == {"old", "new"}
    assert all(row["class_index"] == row["label"] for row in rows.values() if row["label"] is not None)


def test_a_stopped_arm_gets_no_requests(convoy: Convoy, http: httpx.Client, tmp_path: Path) -> None:
    arms = [{"name": name, "model": f"quadrants-{name[0]}"} for name in ("a", "b", "b2")]
    file = tmp_path / "three.yaml"
    file.write_text(json.dumps({"name": "three", "arms": arms}))
    convoy("start", str(file))
    until(lambda: classify(http, "three", 0).status_code == 200)
    assert convoy("stop", "three", "--arm", "b2") == "done\n"
    until(lambda: convoy.status("three")["shares"]["b2"] == 0)
    assert convoy.status("three")["state"] == "running"


def test_an_invalid_definition_is_refused(convoy: Convoy, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("name: [")
    assert "not valid YAML" in convoy.refused("start", str(file))
    file.write_text("name: wrong\narms: [{name: a, model: nowhere}, {name: b, model: quadrants-b}]")
    assert "nowhere" in convoy.refused("start", str(file))
