"""The table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.chaos.faults import Fault

HEAD = (
    "| what happens | requests | failed | what clients saw | slowest | disturbed for | back after | promised | kept |"
)
RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def table(faults: Sequence[Fault], results: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for every fault that was measured; those that were not are named."""
    rows = [_row(fault, results[fault.name]) for fault in faults if fault.name in results]
    missing = [fault.happens for fault in faults if fault.name not in results]
    of = {f"{one['cores']} cores, {one['day']}" for one in results.values()}
    note = f"Measured on {'; '.join(sorted(of))}. {_rates(results)}"
    absent = [f"\nNot measured yet: {'; '.join(missing)}."] if missing else []
    return "\n".join([note, "", HEAD, RULE, *rows, *absent])


def _rates(results: Mapping[str, Mapping[str, Any]]) -> str:
    rates = [one["rate"] for one in results.values()]
    return f"Offered: {min(rates):.0f} to {max(rates):.0f} requests a second." if rates else ""


def _row(fault: Fault, one: Mapping[str, Any]) -> str:
    seen = ", ".join(f"{count:,} × {name}" for name, count in one["seen"].items()) or "answers"
    times = (f"{one[key]:.1f} s" for key in ("slowest_s", "disturbed_s", "back_s"))
    cells = (fault.happens, f"{one['requests']:,}", f"{one['failed']:,}", seen, *times, fault.promise)
    return f"| {' | '.join(cells)} | {'yes' if one['kept'] else '**no**'} |"
