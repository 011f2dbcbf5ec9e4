"""Terminal output: live progress, verdicts and server messages."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from loadtest.coordinator import Run
from loadtest.report.terminal import LiveView, print_report
from loadtest.stats.fold import Fold
from loadtest.worker.records import RECORD
from tests.loadtest.simulated import plan_at, report_of


def narrow_terminal() -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def running() -> Run:
    """A run at 100 requests/s of 10 ms each; every tenth is refused."""
    plan = plan_at(100)
    table = np.zeros(200, RECORD)
    table["scheduled"] = table["sent"] = np.linspace(0, 2, 200, endpoint=False)
    table["done"], table["rows"] = table["scheduled"] + 0.01, 1
    table["outcome"] = np.where(np.arange(200) % 10 == 0, 503, 200)
    fold = Fold(plan)
    fold.add(table, ("",))
    return Run(plan, fold, in_flight={0: 7})


def test_live_progress_fits_a_narrow_terminal() -> None:
    console = narrow_terminal()
    with LiveView(console, "run") as view:
        view.update(running(), 2.0)
        view.refresh()  # without waiting for the next tick
    text = written(console)
    assert "run measuring 2/4 s" in text
    assert "90 answers/s   p50 10  p99 10 ms   7 in flight" in text
    assert "20 HTTP 503" in text


def test_live_progress_needs_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    with LiveView(console, "run") as view:
        view.update(running(), 2.0)
    assert written(console) == ""


def test_a_report_prints_its_verdict_before_its_numbers() -> None:
    console = narrow_terminal()
    print_report(console, report_of(plan_at(250), np.linspace(0.01, 0.05, 1000)))
    text = written(console)
    assert text.index("NOT STEADY: the median latency rose") < text.index("answered /s")
    assert "1000 HTTP 200" in text


def test_a_server_message_is_printed_verbatim_on_one_line() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    report = report_of(plan_at(10), np.full(20, 0.01), failed=np.arange(20) < 1)
    report.accounting.said["timeout: no answer in the client's time"] = "[red]no[/red]"  # type: ignore[index]
    print_report(console, report)
    assert "1 timeout: no answer in the client's time, first: [red]no[/red]" in written(console)
