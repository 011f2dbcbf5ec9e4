"""Tables and plots of docs/performance.md."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.load import Load
from benchmarks.page import GROWTH, render, write
from benchmarks.protocols import beside
from benchmarks.run import PAGE, SECTIONS
from benchmarks.turns import LIMIT

ORIGIN = {"date": "2026-01-01", "machine": "2 cores", "versions": "Python 3.11", "command": "make bench"}


def contender(name: str, rps: float, connections: int = 32) -> dict[str, object]:
    return {"name": name, "connections": connections, "rps": rps, "p50_ms": 1.0, "p99_ms": 2.0, "failed": 0}


def test_every_section_has_its_marks_in_the_page(tmp_path: Path) -> None:
    for name in SECTIONS:
        page = tmp_path / "performance.md"
        page.write_text(PAGE.read_text("utf-8"), "utf-8")
        write(page, name, {"rows": [], **ORIGIN} if name not in GROWTH else {"rows": [growth()], **ORIGIN})
        assert "*2026-01-01, 2 cores" in page.read_text("utf-8"), name


def growth() -> dict[str, float]:
    return {"size": 4, "rps": 100.0, "p99_ms": 3.0, "failed": 0}


def test_ratios_refer_to_the_limit_at_the_same_load(tmp_path: Path) -> None:
    rows = [contender(LIMIT, 1000), contender(LIMIT, 100, 1), contender("Convoy", 950), contender("Convoy", 80, 1)]
    text = render("attempts", rows, tmp_path)[0]
    assert "| Convoy | 32 | 950 | 0.95 |" in text
    assert "| Convoy | 1 | 80 | 0.80 |" in text


def test_rows_measured_in_turns_show_their_own_ratios_and_cpu_time(tmp_path: Path) -> None:
    row = contender("Convoy", 950) | {"of_limit": 0.9, "of_raw": 0.4, "cpu_us": 123.4}
    text = render("lenet5_images", [contender(LIMIT, 1000), row], tmp_path)[0]
    assert "| Convoy | 32 | 950 | 0.90 | 0.40 | 1 | 2 | 123 | 0 |" in text


@pytest.mark.parametrize("name", sorted(GROWTH))
def test_growth_sections_write_valid_svg_plots(name: str, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    render(name, [growth(), growth() | {"size": 8}], plots)
    for plot in plots.iterdir():
        assert ElementTree.parse(plot).getroot().tag.endswith("svg")
    assert len(list(plots.iterdir())) == 2


def test_protocols_are_compared_with_classify_in_the_same_turn(tmp_path: Path) -> None:
    classify, other = ([Load(rps, 1, 1, 0) for rps in rates] for rates in ((1000, 500, 800), (900, 500, 400)))
    row = beside("gRPC, Classify", other, classify)
    assert (row["rps"], row["of_classify"], row["least"], row["most"]) == (500, 0.9, 0.5, 1.0)
    assert "| gRPC, Classify | 500 | 0.90 | 0.50 | 1.00 | 0 |" in render("protocols", [row], tmp_path)[0]
