from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoy.errors import ConfigError
from loadtest.selfcheck.figures import (
    BEGIN,
    END,
    Agreement,
    Cost,
    Queue,
    as_markdown,
    measure_queue,
    predict_queue,
    write_between_markers,
)


def test_the_prediction_of_a_queue_is_the_worked_one() -> None:
    """Five requests at once to an engine of 10 ms wait 10, 20, … 50 ms; one a second later waits for none."""
    found = predict_queue(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 0.01, 0.0)
    assert found["p50"] == pytest.approx(20)
    assert found["p99"] == pytest.approx(50)
    assert predict_queue(np.array([0.0, 0.0, 1.0]), 0.01, 0.5)["p99"] == pytest.approx(10)


def test_figures_become_tables() -> None:
    text = as_markdown(
        [Cost("HTTP", "500/s", 5000.4, 0.2)], Queue({"p50": 1.0}, {"p50": 1.1}), [Agreement("wrk", (99.0,), (100.0,))]
    )
    assert "| HTTP | 500/s | 5000 | 0.2 |" in text
    assert "| measured, ms | 1.1 |" in text
    assert "| wrk | 99.0 | 100.0 | 0.990 |" in text


def test_figures_go_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between_markers(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ConfigError, match="lacks the lines"):
        write_between_markers(page, "new")


@pytest.mark.slow
def test_measured_latency_is_what_queueing_theory_says_of_the_same_schedule() -> None:
    """A queue is never faster than theory; how much slower a busy machine makes it is left wide."""
    found = measure_queue(6.0)
    for name in ("p50", "p90", "p95"):
        assert found.predicted[name] <= found.measured[name] * 1.01
        assert found.measured[name] <= 2 * found.predicted[name] + 10
