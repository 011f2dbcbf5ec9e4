"""Starts coroutines at once, without a task as long as they wait for nothing.

A task runs its coroutine one turn of the event loop later, and costs more than most of what a request does. Python 3.12 has
eager tasks; this does the same in 3.11.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

Work = Coroutine[Any, Any, None]


def start(work: Work, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Runs `work` until it waits for something, and the rest in a task. Returns the task; None if there is no rest."""
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(finish(work, waits_for))


async def finish(work: Work, waits_for: Any) -> None:
    """The rest of a coroutine that has been stepped with `send` and now waits for `waits_for`."""
    await _rest(work, waits_for)


@types.coroutine
def _rest(work: Work, waits_for: Any) -> Generator[Any, Any, None]:
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 passed on
                waits_for = work.throw(error)
            else:
                waits_for = work.send(value)
    except StopIteration:
        return
