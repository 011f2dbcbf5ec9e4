"""Figures of the self-check: the predicted queue, tables, and the output of hey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoy.errors import ConfigError, ConvoyError
from loadtest.plan import Payload
from loadtest.selfcheck.figures import (
    BEGIN,
    END,
    Agreement,
    Cost,
    Queue,
    Subject,
    as_markdown,
    measure_queue,
    parse_hey,
    predict_queue,
    write_between_markers,
)


def test_the_predicted_queue_matches_a_worked_example() -> None:
    """Five requests at once to an engine of 10 ms take 10, 20, … 50 ms; one that is sent a second later does not wait."""
    found = predict_queue(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 0.01, 0.0)
    assert found["p50"] == pytest.approx(20)
    assert found["p99"] == pytest.approx(50)
    assert predict_queue(np.array([0.0, 0.0, 1.0]), 0.01, 0.5)["p99"] == pytest.approx(10)


def test_figures_are_written_as_tables() -> None:
    subject = Subject("a net", "http://127.0.0.1:1", "m", Payload(), 4)
    text = as_markdown(
        [Cost("HTTP", "500/s", 5000.4, 0.2)],
        Queue({"p50": 1.0}, {"p50": 1.1}),
        [Agreement(subject, "wrk", (99.0,), (100.0,)), Agreement(subject, "hey", (101.0, 100.0, 99.0), (100.0,) * 3)],
    )
    assert "| HTTP | 500/s | 5000 | 0.2 |" in text
    assert "| measured, ms | 1.1 |" in text
    assert "| a net | 4 | wrk | 99.0 | 100.0 | 0.990 |  |" in text
    assert "| a net | 4 | hey | 100.0 | 100.0 | 1.000 | 0.975 … 1.025 |" in text


def test_the_rate_of_hey_counts_only_if_all_answers_are_200() -> None:
    output = "  Requests/sec:\t99.5\n\nStatus code distribution:\n  [200]\t1000 responses\n"
    assert parse_hey(output) == 99.5
    for bad in (
        output + "  [503]\t3 responses\n",
        output.replace("200", "404"),
        "",
        "Error distribution:\n  [3]\tGet: EOF\n",
    ):
        with pytest.raises(ConvoyError, match="other answers than 200"):
            parse_hey(bad)


def test_figures_replace_the_text_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between_markers(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ConfigError, match="lacks the lines"):
        write_between_markers(page, "new")


@pytest.mark.slow
def test_measured_latency_matches_queueing_theory_on_the_same_schedule() -> None:
    """A queue is never faster than theory; the upper bound is wide, because a busy machine slows it."""
    found = measure_queue(6.0)
    for name in ("p50", "p90", "p95"):
        assert found.predicted[name] <= found.measured[name] * 1.01
        assert found.measured[name] <= 2 * found.predicted[name] + 10
