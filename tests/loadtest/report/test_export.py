"""JSON, CSV, HTML and metric differences of reports."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from loadtest.plan import Load
from loadtest.report.build import plan_document
from loadtest.report.charts import Axis, Bar, Line, chart
from loadtest.report.export import csv_text, write_json
from loadtest.report.page import report_sections, write_page
from loadtest.report.results import curve
from loadtest.report.values import Report
from loadtest.scrape import Sample, ServerSide, difference
from tests.loadtest.simulated import Server, plan_at, report_of


def report(rate: float = 200.0) -> Report:
    found = Server(300).measure(plan_at(rate, seconds=5.0))
    stages = {"queue": 1.0, "decode": 0.5, "run": 2.0, "post": 0.1}
    return replace(found, server=ServerSide(stages_ms=stages), send_ms=0.2, receive_ms=0.1)


def test_csv_has_perf_analyzer_s_columns_in_its_order_and_units() -> None:
    rows = list(csv.reader(io.StringIO(csv_text([report(250), report(100)]))))
    assert rows[0][:13] == [
        "Request Rate", "Inferences/Second", "Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input",
        "Server Compute Infer", "Server Compute Output", "Client Recv", "p50 latency", "p90 latency", "p95 latency",
        "p99 latency",
    ]  # fmt: skip
    assert [row[0] for row in rows[1:]] == ["100.0", "250.0"]  # by rising throughput
    named = dict(zip(rows[0], rows[1], strict=True))
    assert [named[name] for name in ("Client Send", "Server Queue", "Server Compute Input", "Server Compute Infer")] == [
        "200", "1000", "500", "2000",
    ]  # fmt: skip
    assert int(named["p50 latency"]) == pytest.approx(np.log(2) / 200 * 1e6, rel=0.01)


def test_closed_loop_rows_start_with_the_concurrency() -> None:
    closed = report_of(replace(plan_at(1), load=Load(concurrency=8)), np.full(1000, 0.01))
    assert csv_text([closed]).splitlines()[0].startswith("Concurrency,Inferences/Second,")
    assert csv_text([closed]).splitlines()[1].startswith("8,249.5,")  # two answers arrived after the end


def test_json_contains_the_complete_report(tmp_path: Path) -> None:
    found = report()
    write_json(found, tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["total"]["latency"]["quantiles"]["p99"] == pytest.approx(found.quantile("p99"))
    assert document["usable"] is True
    assert document["accounting"]["balanced"] is True
    assert document["histogram"].startswith("HISTF")
    assert sum(document["accounting"]["outcomes"].values()) == document["accounting"]["issued"]


def test_reports_omit_secret_headers_and_long_recordings() -> None:
    plan = plan_at(1)
    plan = replace(
        plan, target=replace(plan.target, headers=(("Authorization", "Bearer x"),)), load=Load(recorded=(0.0,) * 99)
    )
    document = plan_document(plan)
    assert document["target"]["headers"] == [["Authorization", "***"]]
    assert len(document["load"]["recorded"]) == 21


def test_quantiles_with_too_few_values_beyond_them_are_omitted() -> None:
    assert "p99" not in report_of(plan_at(1), np.full(499, 0.01)).total.latency.quantiles
    assert "p99" in report_of(plan_at(1), np.full(500, 0.01)).total.latency.quantiles
    assert "p99.9" not in report_of(plan_at(1), np.full(500, 0.01)).total.latency.quantiles


class Tags(HTMLParser):
    """Collects the elements of a page that would load or run something, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe") or any(name in ("src", "href") for name, _ in attrs):
            self.outside.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_loads_nothing_and_escapes_names(tmp_path: Path) -> None:
    found = replace(report(), name="<script>x</script>", payloads=("<b>&",))
    write_page(found.name, report_sections(found), tmp_path / "r.html")
    tags = Tags()
    tags.feed((tmp_path / "r.html").read_text())
    assert tags.outside == []
    assert "1000 issued, all accounted for" in tags.text


def test_charts_are_well_formed_and_keep_gaps() -> None:
    line = Line("a & b", [(0.0, 1.0), (1.0, None), (2.0, 100.0), (3.0, 50.0)], "a", marks=True)
    drawn = chart("t<", Axis("x"), Axis("y", log=True), [line], bars=[Bar(2.0, 90.0, float("inf"), "a")])
    figure = ElementTree.fromstring(drawn)
    path = figure.find(".//path")
    assert path is not None
    assert path.attrib["d"].count("M") == 2
    assert "nothing to draw" in chart("t", Axis("x"), Axis("y"), [Line("l", [], "a")])


def test_the_curve_accepts_runs_without_answers() -> None:
    empty = report_of(plan_at(10), np.zeros(0))
    assert "<svg" in curve([report(), empty], 50.0)
    assert "nothing to draw" in curve([empty])


def test_metrics_are_differences_and_reset_counters_count_from_zero() -> None:
    def page(at: float, **values: float) -> Sample:
        keys = {"energy": ("convoy_energy_joules_total", (("method", "measured"), ("source", "rapl")))}
        return Sample(at, {keys.get(name, (name, ())): value for name, value in values.items()})

    found = difference(
        page(0, energy=5, convoy_samples_total=10, convoy_batches_total=5),
        page(2, energy=9, convoy_samples_total=4, convoy_batches_total=7),
    )
    assert (found.energy_j, found.power_w, found.energy_source, found.energy_method) == (4, 2, "rapl", "measured")
    assert found.batch_size == 2
    assert difference(page(0), page(1)).energy_j is None
