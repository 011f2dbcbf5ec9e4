"""Starts coroutines at once, without a task as long as they wait for nothing.

A task runs its coroutine one turn of the event loop later, and costs more than most of what a request does.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


def start(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Runs `work` until it waits for something, and the rest in a task. Returns the task; None if there is no rest."""
    if sys.version_info >= (3, 12):  # also a current task for the first part, which asyncio's timeouts need there
        task = asyncio.Task(work, loop=loop, eager_start=True)
        return None if task.done() else task
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(finish(work, waits_for))


async def finish(work: Coroutine[Any, Any, Result], waits_for: Any) -> Result:
    """The rest of a coroutine that has been stepped with `send` and now waits for `waits_for`. Returns its result."""
    return await _rest(work, waits_for)


@types.coroutine
def _rest(work: Coroutine[Any, Any, Result], waits_for: Any) -> Generator[Any, Any, Result]:
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
