"""The table of docs/reliability.md: a row for each fault, which stays until that fault is measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.chaos.faults import Fault

HEAD = (
    "| what happens | requests | failed | what clients saw | slowest | disturbed for | back after | promised | kept "
    "| measured |"
)
RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def table(faults: Sequence[Fault], results: Mapping[str, Mapping[str, Any]], present: str = "") -> str:
    """New rows for the measured faults, the `present` rows for the others; faults without a measurement are listed."""
    kept = {line.split(" | ", 1)[0].removeprefix("| "): line for line in present.splitlines() if line.startswith("| ")}
    rows = {fault.happens: _row(fault, results[fault.name]) for fault in faults if fault.name in results}
    whole = {fault.happens: rows.get(fault.happens) or kept.get(fault.happens) for fault in faults}
    missing = [happens for happens, row in whole.items() if row is None]
    absent = [f"\nNot measured yet: {'; '.join(missing)}."] if missing else []
    return "\n".join([HEAD, RULE, *filter(None, whole.values()), *absent])


def _row(fault: Fault, one: Mapping[str, Any]) -> str:
    seen = ", ".join(f"{count:,} × {name}" for name, count in one["seen"].items()) or "answers"
    times = (f"{one[key]:.2f} s" for key in ("slowest_s", "disturbed_s", "back_s"))
    requests = f"{one['requests']:,} at {one['rate']:.0f}/s"
    kept = "yes" if one["kept"] else "**no**"
    day = f"{one['day']}, {one['cores']} cores"
    cells = (fault.happens, requests, f"{one['failed']:,}", seen, *times, fault.promise, kept, day)
    return f"| {' | '.join(cells)} |"
