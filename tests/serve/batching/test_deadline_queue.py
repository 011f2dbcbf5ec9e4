from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.batching.deadline_queue import NEVER, STEP_SECONDS, Backlog, DeadlineQueue


@dataclass(frozen=True)
class Item:
    """An entry of the line with a number to tell it by."""

    number: int
    size: int
    priority: int
    deadline: float
    gone: bool = False
    most: int = 99


def at_once(size: int) -> float:
    return 0.0


def items(limit: int = 8) -> st.SearchStrategy[list[Item]]:
    fields = st.tuples(
        st.integers(1, limit), st.integers(1, 3), st.integers(0, 20), st.booleans(), st.sampled_from((1, 4, 99))
    )
    return st.lists(fields, max_size=40).map(
        lambda rows: [
            Item(number, size, priority, float(deadline), gone, most)
            for number, (size, priority, deadline, gone, most) in enumerate(rows)
        ]
    )


def filled(entries: list[Item]) -> DeadlineQueue[Item]:
    line: DeadlineQueue[Item] = DeadlineQueue()
    for entry in entries:
        line.push(entry)
    return line


@given(items(), st.integers(8, 16), st.floats(0, 20), st.floats(0, 5))
def test_taking_until_empty_yields_each_entry_once(entries: list[Item], limit: int, now: float, run: float) -> None:
    line = filled(entries)
    seen: list[Item] = []
    while line:
        crowded = line.rows > limit
        batch, late = line.take(now, limit, lambda size: run)
        taken = sum(entry.size for entry in batch)
        assert taken <= limit
        assert len(batch) == 1 or all(taken <= entry.most for entry in batch)
        assert all(entry.deadline >= now for entry in batch)
        assert all(entry.deadline < now + (run if crowded or entry.most < limit else 0) for entry in late)
        assert not any(entry.gone for entry in batch + late)
        seen += batch + late
    assert sorted(entry.number for entry in seen) == [entry.number for entry in entries if not entry.gone]
    assert line.rows == 0


def test_only_a_crowded_line_refuses_on_an_estimate() -> None:
    alone = filled([Item(0, 1, 8, 5.0)])
    assert [entry.number for entry in alone.take(0.0, 8, lambda size: 60.0)[0]] == [0]
    crowd = filled([Item(number, 1, 8, 5.0 + number) for number in range(10)])
    batch, late = crowd.take(0.0, 8, lambda size: 7.5)
    assert [entry.number for entry in late] == [0, 1]
    assert [entry.number for entry in batch] == [2, 3, 4, 5, 6, 7, 8, 9]


@given(items(), st.integers(1, 3), st.integers(0, 20))
def test_ahead_are_the_rows_that_would_be_taken_before(entries: list[Item], priority: int, deadline: int) -> None:
    line = filled(entries)
    before = [e for e in entries if (e.priority, e.deadline) <= (priority, deadline)]
    assert line.ahead_of(priority, float(deadline)) == sum(entry.size for entry in before)


@given(items(), st.integers(8, 16))
def test_order_is_priority_then_deadline_then_arrival(entries: list[Item], limit: int) -> None:
    line = filled(entries)
    order: list[Item] = []
    while line:
        order += line.take(0, limit, at_once)[0]
    alive = [entry for entry in entries if not entry.gone]
    assert order == sorted(alive, key=lambda entry: (entry.priority, entry.deadline, entry.number))


@given(items(), st.integers(8, 16))
def test_a_batch_is_filled_while_the_next_fits(entries: list[Item], limit: int) -> None:
    line = filled([entry for entry in entries if not entry.gone])
    batch, _ = line.take(0, limit, at_once)
    rest = line.take(0, limit, at_once)[0]
    if rest:
        most = min([limit, *(max(entry.most, entry.size) for entry in [*batch, rest[0]])])
        assert sum(entry.size for entry in batch) + rest[0].size > most


@given(items(), st.floats(0, 20))
def test_expire_removes_exactly_the_late(entries: list[Item], now: float) -> None:
    line = filled(entries)
    expired = line.expire(now)
    assert {entry.number for entry in expired} == {e.number for e in entries if e.deadline < now and not e.gone}
    kept = [entry for entry in entries if entry.deadline >= now and not entry.gone]
    assert line.rows == sum(entry.size for entry in kept)
    assert line.next_deadline() == min((entry.deadline for entry in kept), default=NEVER)


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0, 1), st.floats(0.001, 5)), max_size=40), st.data())
def test_a_backlog_is_the_sum_of_what_waits_before(
    amounts: list[tuple[int, float, float]], data: st.DataObject
) -> None:
    backlog, waiting = Backlog(), list[tuple[int, float, float]]()
    for one in amounts:
        backlog.add(*one)
        waiting.append(one)
        if data.draw(st.booleans()):
            gone = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            backlog.remove(*gone)
        priority, deadline = data.draw(st.integers(1, 3)), data.draw(st.floats(0, 1))
        place = (priority, int(deadline / STEP_SECONDS))
        before = sum(amount for p, d, amount in waiting if (p, int(d / STEP_SECONDS)) <= place)
        assert backlog.ahead_of(priority, deadline) == pytest.approx(before, abs=1e-4)
        assert backlog.total == pytest.approx(sum(amount for *_, amount in waiting), abs=1e-4)
