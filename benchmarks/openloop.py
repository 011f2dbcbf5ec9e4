"""An open-loop client as thin as Python allows: requests at a fixed rate, whatever the answers do.

Latency counts from the scheduled time, so that a client that cannot send in time does not hide it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Account:
    """Status of every request, 0 without an answer, with its scheduled time, its latency and how late it set off, in seconds."""

    scheduled: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def count(self, status: int, within: float = float("inf"), after: float = 0.0) -> int:
        """Answers of this status within so many seconds, of requests scheduled `after` that time of the run or later."""
        rows = zip(self.scheduled, self.seconds, self.statuses, strict=True)
        return sum(code == status and seconds <= within and at >= after for at, seconds, code in rows)

    def p99_ms(self, status: int, after: float = 0.0) -> float | None:
        return self._p99_ms(self.seconds, status, after)

    def late_p99_ms(self, status: int, after: float = 0.0) -> float | None:
        """What of it the client itself was late, on cores that it shares with the server."""
        return self._p99_ms(self.late, status, after)

    def _p99_ms(self, seconds: Sequence[float], status: int, after: float) -> float | None:
        rows = zip(self.scheduled, seconds, self.statuses, strict=True)
        chosen = [one for at, one, code in rows if code == status and at >= after]
        return float(np.quantile(chosen, 0.99)) * 1000 if chosen else None


def offer(url: str, body: Path, rate: float, seconds: float, headers: Mapping[str, str]) -> Account:
    """Posts `body` `rate` times a second."""
    return uvloop.run(_offer(url, body.read_bytes(), rate, seconds, headers))


async def _offer(url: str, body: bytes, rate: float, seconds: float, headers: Mapping[str, str]) -> Account:
    parts = urlsplit(url)
    lines = {"Host": parts.netloc, "Content-Length": str(len(body)), **headers}
    head = f"POST {parts.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    request = head.encode() + b"\r\n" + body
    account, idle, tasks = Account(), list[Connection](), set[asyncio.Task[None]]()
    start = time.monotonic()

    async def ask(at: float) -> None:
        status, late = 0, time.monotonic() - start - at
        try:
            connection = idle.pop() if idle else await asyncio.open_connection(parts.hostname, parts.port)
            status = await _exchange(connection, request)
            idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            pass
        account.scheduled.append(at)
        account.late.append(late)
        account.seconds.append(time.monotonic() - start - at)
        account.statuses.append(status)

    for number in range(int(rate * seconds)):
        at = number / rate
        if (pause := start + at - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(ask(at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()
    return account


async def _exchange(connection: Connection, request: bytes) -> int:
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12])
