"""The deadline queue: order, batches, expiry, and the work that waits before a request."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.batching.deadline_queue import NEVER, STEP_SECONDS, Backlog, DeadlineQueue


@dataclass(frozen=True)
class Item:
    """A queue item. `number`: its place in the order of arrival. `most`: limit of the batch it is in."""

    number: int
    size: int
    priority: int
    deadline: float
    gone: bool = False
    most: int = 99


def no_time(size: int) -> float:
    """A prediction that runs take no time."""
    return 0.0


def item_lists(limit: int = 8) -> st.SearchStrategy[list[Item]]:
    fields = st.tuples(
        st.integers(1, limit), st.integers(1, 3), st.integers(0, 20), st.booleans(), st.sampled_from((1, 4, 99))
    )
    return st.lists(fields, max_size=40).map(
        lambda rows: [
            Item(number, size, priority, float(deadline), gone, most)
            for number, (size, priority, deadline, gone, most) in enumerate(rows)
        ]
    )


def filled(items: list[Item]) -> DeadlineQueue[Item]:
    queue: DeadlineQueue[Item] = DeadlineQueue()
    for item in items:
        queue.push(item)
    return queue


@given(item_lists(), st.integers(8, 16), st.floats(0, 20), st.floats(0, 5))
def test_every_item_is_taken_once(items: list[Item], limit: int, now: float, run: float) -> None:
    queue = filled(items)
    seen: list[Item] = []
    while queue:
        crowded = queue.rows > limit
        batch, late = queue.take(now, limit, lambda size: run)
        taken = sum(item.size for item in batch)
        assert taken <= limit
        assert len(batch) == 1 or all(taken <= item.most for item in batch)
        assert all(item.deadline >= now for item in batch)
        assert all(item.deadline < now + (run if crowded or item.most < limit else 0) for item in late)
        assert not any(item.gone for item in batch + late)
        seen += batch + late
    assert sorted(item.number for item in seen) == [item.number for item in items if not item.gone]
    assert queue.rows == 0


def test_only_a_crowded_queue_drops_items_on_an_estimate() -> None:
    alone = filled([Item(0, 1, 8, 5.0)])
    assert [item.number for item in alone.take(0.0, 8, lambda size: 60.0)[0]] == [0]
    crowded = filled([Item(number, 1, 8, 5.0 + number) for number in range(10)])
    batch, late = crowded.take(0.0, 8, lambda size: 7.5)
    assert [item.number for item in late] == [0, 1]
    assert [item.number for item in batch] == [2, 3, 4, 5, 6, 7, 8, 9]


@given(item_lists(), st.integers(1, 3), st.integers(0, 20))
def test_ahead_of_counts_the_rows_that_would_be_taken_earlier(items: list[Item], priority: int, deadline: int) -> None:
    queue = filled(items)
    before = [item for item in items if (item.priority, item.deadline) <= (priority, deadline)]
    assert queue.ahead_of(priority, float(deadline)) == sum(item.size for item in before)


@given(item_lists(), st.integers(8, 16))
def test_items_are_taken_by_priority_then_deadline_then_arrival(items: list[Item], limit: int) -> None:
    queue = filled(items)
    order: list[Item] = []
    while queue:
        order += queue.take(0, limit, no_time)[0]
    alive = [item for item in items if not item.gone]
    assert order == sorted(alive, key=lambda item: (item.priority, item.deadline, item.number))


@given(item_lists(), st.integers(8, 16))
def test_a_batch_is_filled_while_the_next_item_fits(items: list[Item], limit: int) -> None:
    queue = filled([item for item in items if not item.gone])
    batch, _ = queue.take(0, limit, no_time)
    rest = queue.take(0, limit, no_time)[0]
    if rest:
        most = min([limit, *(max(item.most, item.size) for item in [*batch, rest[0]])])
        assert sum(item.size for item in batch) + rest[0].size > most


@given(item_lists(), st.floats(0, 20))
def test_expire_removes_exactly_the_late_items(items: list[Item], now: float) -> None:
    queue = filled(items)
    expired = queue.expire(now)
    assert {item.number for item in expired} == {item.number for item in items if item.deadline < now and not item.gone}
    kept = [item for item in items if item.deadline >= now and not item.gone]
    assert queue.rows == sum(item.size for item in kept)
    assert queue.next_deadline() == min((item.deadline for item in kept), default=NEVER)


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0, 1), st.floats(0.001, 5)), max_size=40), st.data())
def test_the_backlog_ahead_is_the_sum_of_the_earlier_amounts(
    amounts: list[tuple[int, float, float]], data: st.DataObject
) -> None:
    backlog, waiting = Backlog(), list[tuple[int, float, float]]()
    for added in amounts:
        backlog.add(*added)
        waiting.append(added)
        if data.draw(st.booleans()):
            removed = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            backlog.remove(*removed)
        priority, deadline = data.draw(st.integers(1, 3)), data.draw(st.floats(0, 1))
        place = (priority, int(deadline / STEP_SECONDS))
        before = sum(amount for p, d, amount in waiting if (p, int(d / STEP_SECONDS)) <= place)
        assert backlog.ahead_of(priority, deadline) == pytest.approx(before, abs=1e-4)
        assert backlog.total == pytest.approx(sum(amount for *_, amount in waiting), abs=1e-4)
