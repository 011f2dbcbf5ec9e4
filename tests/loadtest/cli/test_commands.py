"""The commands: help, errors, outputs and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from convoy.errors import ConfigError
from loadtest.cli import main
from loadtest.cli.common import parse_requirement
from loadtest.cli.options import make_load
from loadtest.plan import Step
from loadtest.scenario import known_scenarios
from tests.loadtest.conftest import REPOSITORY, Echo
from tests.loadtest.simulated import Server, plan_at

QUICK = ("--side", "8", "--count", "4", "--duration", "400ms", "--warmup", "100ms")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_help_answers_questions() -> None:
    text = invoke("--help").output
    assert text.count("?") >= 10
    for command in (
        "run",
        "limit",
        "sweep",
        "spike",
        "soak",
        "compare",
        "scenario",
        "scenarios",
        "mlperf",
        "selfcheck",
    ):
        assert "?" in invoke(command, "--help").output


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "http://127.0.0.1:1", "-m", "m"), "choose one load"),
        (("run", "127.0.0.1:1", "-m", "m", "--rate", "5"), "no http://HOST:PORT"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--concurrency", "2"), "a load is one of"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--labels", "folder"), "need --images"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--header", "x"), "NAME:VALUE"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--driver", "wrk"), "closed loop over HTTP only"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--steps", "fast"), "is not like 10@10s"),
        (("limit", "http://127.0.0.1:1", "-m", "m"), "choose one target"),
        (("limit", "http://127.0.0.1:1", "-m", "m", "--p99", "1s", "--driver", "wrk"), "needs open loop"),
        (("sweep", "http://127.0.0.1:1", "-m", "m"), "--rates or --concurrency"),
        (("compare", "http://127.0.0.1:1", "-m", "m", "--rate", "5"), "missing URL_B"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--require", "p99=5"), "not like p99<=50"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "nan"), "rates must be numbers"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--count", "0"), "count and side"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--seed", "-1"), "seed must not"),
        (("run", "http://127.0.0.1:1", "-m", "m", "--rate", "5", "--slow-upload", "nan"), "at least 1"),
        (("run", "http://me:secret@127.0.0.1:1", "-m", "m", "--rate", "5"), "send it with --header"),
        (("selfcheck", "--on", "http://127.0.0.1:1"), "go together"),
        (("scenario", "nothing"), "no scenario 'nothing'"),
    ],
)
def test_a_usage_error_is_one_line_with_the_remedy(words: tuple[str, ...], text: str) -> None:
    done = invoke(*words)
    assert done.exit_code == 1
    assert done.output.startswith("loadtest: ")
    assert text in done.output
    assert len(done.output.splitlines()) == 1


def test_a_run_prints_and_writes_its_outcomes(echo: Echo, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    done = invoke("run", echo.http, "-m", "busy", "--rate", "100", *QUICK, "--json", str(path))
    assert done.exit_code in (0, 3)
    assert "HTTP 503" in done.output
    document = json.loads(path.read_text())
    assert document["accounting"]["balanced"]
    assert f"{document['accounting']['outcomes']['HTTP 503']} HTTP 503" in done.output


def test_an_unmet_requirement_has_its_own_exit_code(echo: Echo) -> None:
    words = ("run", echo.http, "-m", "busy", "--concurrency", "2", *QUICK)
    assert invoke(*words, "--require", "failed<=0.5").exit_code == 0
    assert invoke(*words, "--require", "failed<=0.1").exit_code == 4


def test_a_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "r.html"
    done = invoke("soak", "http://127.0.0.1:1", "-m", "m", "--rate", "1", "--duration", "9h", "--html", str(path))
    assert done.exit_code == 2
    assert f"the folder '{path.parent}' does not exist" in " ".join(done.output.split())


def test_a_run_without_answers_fails() -> None:
    done = invoke("run", "http://127.0.0.1:1", "-m", "m", "--concurrency", "1", *QUICK)
    assert done.exit_code == 4
    assert "no request succeeded" in done.output


def test_a_scenario_measures_the_capacity_first(echo: Echo, tmp_path: Path) -> None:
    text = (known_scenarios()["overload-x2"]).read_text()
    (tmp_path / "quick.yaml").write_text(text + "warmup: 100ms\n")
    done = invoke("scenario", str(tmp_path / "quick.yaml"), "--url", echo.http, "-m", "engine", "--duration", "500ms")
    assert done.exit_code in (0, 3)
    assert "capacity: " in done.output


def test_ctrl_c_ends_a_soak_early_with_its_report(echo: Echo, tmp_path: Path) -> None:
    path, model = tmp_path / "r.json", "soaked"
    command = [
        sys.executable,
        "-m",
        "loadtest",
        "soak",
        echo.http,
        "-m",
        model,
        "--rate",
        "100",
        "--duration",
        "10m",
        "--warmup",
        "0s",
    ]
    process = subprocess.Popen(
        [*command, *QUICK[:4], "--json", str(path)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    while echo.counts().get(model, 0) < 200:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode in (0, 3)
    report = json.loads(path.read_text())["report"]
    assert report["stopped"]
    assert report["accounting"]["issued"] == echo.counts()[model] == sum(report["accounting"]["outcomes"].values())
    assert "HTTP 200" in output


def test_requirements_are_parsed() -> None:
    report = Server(100).measure(plan_at(50, seconds=20.0))
    assert parse_requirement("p99<=500").met(report)
    assert not parse_requirement("p99 <= 1").met(report)
    assert parse_requirement("throughput>=40").met(report)
    assert not parse_requirement("accuracy>=0.1").met(report)
    with pytest.raises(ConfigError, match="known: "):
        parse_requirement("p98<=1")


def test_loads_are_parsed() -> None:
    assert make_load({"steps": "10@2s,50@500ms"}).steps == (Step(10, 2), Step(50, 0.5))
    assert make_load({"concurrency": 3, "think": 0.5}).think_s == 0.5
