"""The table of docs/reliability.md: a row per fault, which stays until that fault is measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.chaos.faults import Fault

HEAD = "| fault | requests | failed | errors | slowest | disturbed for | recovered after | promise | kept | measured |"
RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def table(faults: Sequence[Fault], results: Mapping[str, Mapping[str, Any]], present: str = "") -> str:
    """Rows from `results`, and the rows of the `present` table for other faults; faults without a row are listed below."""
    lines = [line for line in present.splitlines() if line.startswith("| ")]
    old_rows = {line.split(" | ", 1)[0].removeprefix("| "): line for line in lines}
    rows = {fault.happens: _row(fault, results[fault.name]) for fault in faults if fault.name in results}
    all_rows = {fault.happens: rows.get(fault.happens) or old_rows.get(fault.happens) for fault in faults}
    missing = [happens for happens, row in all_rows.items() if row is None]
    note = [f"\nNot measured yet: {'; '.join(missing)}."] if missing else []
    return "\n".join([HEAD, RULE, *filter(None, all_rows.values()), *note])


def _row(fault: Fault, result: Mapping[str, Any]) -> str:
    errors = ", ".join(f"{count:,} × {name}" for name, count in result["seen"].items()) or "none"
    times = (f"{result[key]:.2f} s" for key in ("slowest_s", "disturbed_s", "back_s"))
    requests = f"{result['requests']:,} at {result['rate']:.0f}/s"
    kept = "yes" if result["kept"] else "**no**"
    day = f"{result['day']}, {result['cores']} cores"
    cells = (fault.happens, requests, f"{result['failed']:,}", errors, *times, fault.promise, kept, day)
    return f"| {' | '.join(cells)} |"
