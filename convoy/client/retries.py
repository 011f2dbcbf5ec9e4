"""Which failed calls are tried again, and when: exponential backoff with full jitter, within the caller's deadline.

Classification and inference change nothing on the server, so a call may be repeated whenever another try can succeed: the
server was not there, not ready or overloaded. A call that was wrong or too late stays so.
Full jitter: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from convoy.errors import ConvoyError, NotReady, Overloaded

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Retries:
    """At most `tries` tries in all; the pause before try n + 1 is drawn from 0 to `first_s` 2^(n-1), at most `longest_s`."""

    tries: int = 3
    first_s: float = 0.1
    longest_s: float = 2.0

    def pause(self, tried: int, error: ConvoyError, remaining_s: float) -> float | None:
        """Seconds to wait before the next try after `tried` of them, None: give up. An overload's own wish is kept."""
        if tried >= self.tries or not isinstance(error, (NotReady, Overloaded)):
            return None
        pause = random.uniform(0, min(self.longest_s, self.first_s * 2 ** (tried - 1)))
        if isinstance(error, Overloaded):
            pause += error.retry_after_s
        return pause if pause < remaining_s else None


def call(retries: Retries, timeout: float, attempt: Callable[[float], Answer]) -> Answer:
    """The answer of the first try that succeeds; `attempt` is given the seconds that are left."""
    deadline = time.monotonic() + timeout
    tried = 0
    while True:
        tried += 1
        try:
            return attempt(deadline - time.monotonic())
        except ConvoyError as error:
            pause = retries.pause(tried, error, deadline - time.monotonic())
            if pause is None:
                raise
        time.sleep(pause)


async def call_async(retries: Retries, timeout: float, attempt: Callable[[float], Awaitable[Answer]]) -> Answer:
    """As `call`, on an event loop."""
    deadline = time.monotonic() + timeout
    tried = 0
    while True:
        tried += 1
        try:
            return await attempt(deadline - time.monotonic())
        except ConvoyError as error:
            pause = retries.pause(tried, error, deadline - time.monotonic())
            if pause is None:
                raise
        await asyncio.sleep(pause)
