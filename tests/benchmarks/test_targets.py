"""Targets of docs/performance.md, computed from its tables."""

from __future__ import annotations

import pytest

from benchmarks.marks import read_between
from benchmarks.page import BEGIN, END, targets
from benchmarks.run import PAGE
from benchmarks.targets import TARGETS, Target, cell, number, share, tables, times

TEXT = """
*2026-01-01, 2 cores*

|  | in flight | requests/s | of limit | p50 ms |
| --- | --- | --- | --- | --- |
| limit | 32 | 2,000 | 1.00 | 5 |
| Convoy, local | 32 | 3,000 | 1.50 |  |
| Convoy, local | 1 | 100 | 0.50 | 5 |

- a remark

| mean ms by stage | total |
| --- | --- |
| Convoy, local | 4.270 |
"""


def test_values_are_found_by_row_column_and_load() -> None:
    lines = tables(TEXT)
    assert share("Convoy, local")(lines) == 1.5
    assert share("Convoy, local", 1)(lines) == 0.5
    assert times("Convoy, local", "limit")(lines) == 1.5
    assert cell(lines, "Convoy, local", "total") == 4.27
    with pytest.raises(LookupError, match="triton"):
        share("triton")(lines)
    with pytest.raises(LookupError, match="p50"):  # an empty cell is no value
        share("Convoy, local", column="p50 ms")(lines)


@pytest.mark.parametrize(("text", "value"), [("1,234", 1234), ("5.6%", 5.6), ("+0.2%", 0.2), ("7e+03", 7000)])
def test_numbers_in_tables_are_parsed(text: str, value: float) -> None:
    assert number(text) == value


def test_a_target_states_whether_it_is_met() -> None:
    lines = tables(TEXT)
    least, most = (Target("work", 1.4, "x", share("Convoy, local"), at_most) for at_most in (False, True))
    assert least.row(lines) == ("work", "≥ 1.4", "1.5", "yes")
    assert most.row(lines) == ("work", "≤ 1.4", "1.5", "**no**")
    assert least.row([]) == ("work", "≥ 1.4", "not measured", "")


def test_the_targets_of_the_page_match_its_tables() -> None:
    section = read_between(PAGE, BEGIN.format(name="targets"), END.format(name="targets"))
    assert section.strip() == targets(PAGE)
    assert len(tables(section)) == len(TARGETS)


@pytest.mark.parametrize(("kept", "value"), [("yes", "0.9"), ("**no**", "0")])
def test_a_server_that_misses_the_bound_reaches_nothing(kept: str, value: str) -> None:
    page = f"""
|  | of offline | p99 within the bound |
| --- | --- | --- |
| HTTP, server | 0.90 | {kept} |
"""
    (target,) = (target for target in TARGETS if "MLPerf server" in target.work)
    assert target.row(tables(page))[2] == value
