"""`convoy capacity` reads the latency curve from a running server and computes fleets that grow with the traffic."""

from __future__ import annotations

import json

from click.testing import CliRunner

from convoy.cli import main
from serve.config.schema import Settings

TIMES = ("--decode-ms", "9", "--loop-ms", "0.3")


def test_fleets_grow_with_the_traffic(server: Settings) -> None:
    url = f"http://127.0.0.1:{server.listen.http_port}"
    command = ["capacity", "squeezenet1_1-imagenet", "--rate", "10", "--p99", "2000", *TIMES, "--url", url]
    answer = CliRunner().invoke(main, [*command, "--json"])
    assert answer.exit_code == 0, answer.output
    rows = json.loads(answer.output)
    assert [row["rate"] for row in rows] == [10, 100, 1000]
    assert all(row["p99_ms"] <= 2000 for row in rows)
    assert rows[0]["hosts"] < rows[1]["hosts"] < rows[2]["hosts"]
    assert "breaks first" in CliRunner().invoke(main, command).output


def test_impossible_targets_are_refused_with_the_reason(server: Settings) -> None:
    url = f"http://127.0.0.1:{server.listen.http_port}"
    for model, p99, words in (
        ("squeezenet", "200", "squeezenet1_1-imagenet"),
        ("lenet5-mnist", "1", "more machines do not help"),
    ):
        answer = CliRunner().invoke(main, ["capacity", model, "--rate", "1", "--p99", p99, *TIMES, "--url", url])
        assert answer.exit_code == 1
        assert words in answer.output
