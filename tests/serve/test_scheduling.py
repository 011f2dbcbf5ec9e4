from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from serve.scheduling import NEVER, WaitingLine


@dataclass(frozen=True)
class Item:
    """An entry of the line with a number to tell it by."""

    number: int
    size: int
    priority: int
    deadline: float
    gone: bool = False


def items(limit: int = 8) -> st.SearchStrategy[list[Item]]:
    fields = st.tuples(st.integers(1, limit), st.integers(1, 3), st.integers(0, 20), st.booleans())
    return st.lists(fields, max_size=40).map(
        lambda rows: [
            Item(number, size, priority, float(deadline), gone)
            for number, (size, priority, deadline, gone) in enumerate(rows)
        ]
    )


def filled(entries: list[Item]) -> WaitingLine[Item]:
    line: WaitingLine[Item] = WaitingLine()
    for entry in entries:
        line.push(entry)
    return line


@given(items(), st.integers(8, 16), st.floats(0, 20), st.floats(0, 5))
def test_taking_until_empty_yields_each_entry_once(entries: list[Item], limit: int, now: float, run: float) -> None:
    line = filled(entries)
    seen: list[Item] = []
    while line:
        batch, late = line.take(now, limit, run)
        assert sum(entry.size for entry in batch) <= limit
        assert all(entry.deadline >= now + run for entry in batch)
        assert all(entry.deadline < now + run for entry in late)
        assert not any(entry.gone for entry in batch + late)
        seen += batch + late
    assert sorted(entry.number for entry in seen) == [entry.number for entry in entries if not entry.gone]
    assert line.rows == 0


@given(items(), st.integers(8, 16))
def test_order_is_priority_then_deadline_then_arrival(entries: list[Item], limit: int) -> None:
    line = filled(entries)
    order: list[Item] = []
    while line:
        order += line.take(0, limit, 0)[0]
    alive = [entry for entry in entries if not entry.gone]
    assert order == sorted(alive, key=lambda entry: (entry.priority, entry.deadline, entry.number))


@given(items(), st.integers(8, 16))
def test_a_batch_is_filled_while_the_next_fits(entries: list[Item], limit: int) -> None:
    line = filled([entry for entry in entries if not entry.gone])
    batch, _ = line.take(0, limit, 0)
    rest = line.take(0, limit, 0)[0]
    if rest:
        assert sum(entry.size for entry in batch) + rest[0].size > limit


@given(items(), st.floats(0, 20))
def test_expire_removes_exactly_the_late(entries: list[Item], now: float) -> None:
    line = filled(entries)
    expired = line.expire(now)
    assert {entry.number for entry in expired} == {e.number for e in entries if e.deadline < now and not e.gone}
    kept = [entry for entry in entries if entry.deadline >= now and not entry.gone]
    assert line.rows == sum(entry.size for entry in kept)
    assert line.next_deadline() == min((entry.deadline for entry in kept), default=NEVER)
