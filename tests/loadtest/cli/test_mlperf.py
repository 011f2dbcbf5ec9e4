"""`loadtest mlperf`: help, errors, outputs and exit codes."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtest.cli import main
from tests.loadtest.conftest import REPOSITORY, Echo
from tests.loadtest.drivers.mlperf.graphs import write_graph

URL = ("--url", "http://127.0.0.1:1", "-m", "m")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, ["mlperf", *words])


def test_help_teaches_each_scenario_and_says_that_no_run_is_a_submission() -> None:
    text = " ".join(invoke("--help").output.split())
    assert text.count("?") >= 5
    assert "NOT a valid MLPerf submission" in text
    assert "convoy-serve[mlperf]" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "choose what to measure: --url URL with -m MODEL, or --onnx FILE"),
        ((*URL, "--onnx", __file__), "choose what to measure"),
        (URL[:2], "needs the name of a model: -m MODEL"),
        ((*URL, "--accuracy"), "--accuracy needs labelled images"),
        ((*URL, "--qps", "-1"), "--qps must be positive"),
        ((*URL, "--concurrency", "-1"), "--concurrency must be at least 1"),
        (("--url", "127.0.0.1:1", "-m", "m"), "no http://HOST:PORT"),
        (("--onnx", __file__, "--batch", "-3"), "--batch and --threads"),
        (("--onnx", __file__), "cannot be loaded by ONNX Runtime"),
    ],
)
def test_a_usage_error_is_one_line_with_the_remedy(words: tuple[str, ...], text: str, tmp_path: Path) -> None:
    done = invoke("--scenario", "server", "--logs", str(tmp_path), *words)
    assert done.exit_code == 1
    assert text in done.output
    assert len(done.output.splitlines()) == 1


def test_without_the_package_the_error_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['mlperf_loadgen'] = None; from loadtest.cli import main; main()"
    command = [sys.executable, "-c", code, "mlperf", "--scenario", "offline", *URL, "--logs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 1
    assert done.stderr == "loadtest: MLPerf LoadGen is not installed: pip install 'convoy-serve[mlperf]'\n"


def test_a_run_prints_and_writes_its_report(echo: Echo, tmp_path: Path) -> None:
    words = ("--scenario", "server", "--url", echo.http, "-m", "mlperf", "--side", "8", "--count", "4", "--qps", "50")
    files = ("--logs", str(tmp_path / "logs"), "--json", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv"))
    done = invoke(*words, "--duration", "600ms", "--latency-ms", "9000", *files)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "NOT A VALID MLPERF SUBMISSION: it was set to 0.6 s, the rules require at least 600 s" in text
    assert "≤ 9000: kept" in text
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["bound_kept"] is True
    assert document["result"]["latency_ms"]["p99"] > 0
    assert document["submission_gaps"]
    with (tmp_path / "r.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["scenario"], row["failed"], row["valid_submission"], row["bound_kept"]) == (
        "server",
        "0",
        "false",
        "true",
    )
    assert (tmp_path / "logs" / "mlperf_log_detail.txt").exists()


def test_a_bound_that_is_not_kept_has_its_own_exit_code(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "tensor.onnx")
    words = ("--scenario", "server", "--onnx", str(path), "--tensor", "--count", "4", "--qps", "50", "--threads", "1")
    done = invoke(*words, "--duration", "500ms", "--latency-ms", "0.001", "--logs", str(tmp_path))
    assert done.exit_code == 4
    assert "> 0.001: BROKEN" in done.output


def test_ctrl_c_ends_the_run_and_its_process(tmp_path: Path) -> None:
    path, log = write_graph(tmp_path / "tensor.onnx"), tmp_path / "logs" / "mlperf_log_detail.txt"
    words = ["mlperf", "--scenario", "single-stream", "--onnx", str(path), "--tensor", "--logs", str(log.parent)]
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "loadtest", *words],  # shells ignore it in the background
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
    )
    while not log.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()  # ends only when the generator's process has closed its end of the pipe too
    assert process.returncode == 1
    assert output.strip() == "Aborted!"
