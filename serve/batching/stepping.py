"""Continues in a task the work that was stepped by hand until it waits for something other than a `QueueItem`."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


@types.coroutine
def continued(work: Coroutine[Any, Any, Result], waits_for: Any) -> Generator[Any, Any, Result]:
    """The rest of a coroutine that has been stepped until it waits for `waits_for`, for a task."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 passed on
                waits_for = work.throw(error)
            else:
                waits_for = work.send(value)
    except StopIteration as done:
        result: Result = done.value
        return result
