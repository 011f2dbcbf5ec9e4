"""A minimal open-loop client: it sends requests at a fixed rate, independent of the answers.

Latency counts from the scheduled time, so that delays of the client itself are not hidden (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

TICK_SECONDS = 0.001  # between two checks for requests that are due
LINGER_SECONDS = 5.0  # for the last answers


@dataclass
class Account:
    """Status of every request (0: no answer), with its scheduled time, its latency and the delay of its sending, in seconds."""

    scheduled: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    cpu_seconds: float = 0.0  # used by the client itself

    def count(self, status: int, within: float = float("inf"), after: float = 0.0) -> int:
        """Number of answers of this status `within` that many seconds, to requests scheduled `after` that second of the run."""
        rows = zip(self.scheduled, self.seconds, self.statuses, strict=True)
        return sum(code == status and seconds <= within and after <= at for at, seconds, code in rows)

    def p99_ms(self, status: int, after: float = 0.0) -> float | None:
        return self._p99_ms(self.seconds, status, after)

    def late_p99_ms(self, status: int, after: float = 0.0) -> float | None:
        """p99 of the client's own sending delay, which is part of the latency when it shares its cores with the server."""
        return self._p99_ms(self.late, status, after)

    def _p99_ms(self, seconds: Sequence[float], status: int, after: float) -> float | None:
        rows = zip(self.scheduled, seconds, self.statuses, strict=True)
        chosen = [value for at, value, code in rows if code == status and at >= after]
        return float(np.quantile(chosen, 0.99)) * 1000 if chosen else None


def offer(url: str, body: Path, rate: float, seconds: float, headers: Mapping[str, str]) -> Account:
    """Posts `body` `rate` times per second, for `seconds`."""
    return uvloop.run(_offer(url, body.read_bytes(), rate, seconds, headers))


async def _offer(url: str, body: bytes, rate: float, seconds: float, headers: Mapping[str, str]) -> Account:
    parts = urlsplit(url)
    lines = {"Host": parts.netloc, "Content-Length": str(len(body)), **headers}
    head = f"POST {parts.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    assert parts.hostname is not None
    assert parts.port is not None
    client = _Client(parts.hostname, parts.port, head.encode() + b"\r\n" + body)
    cpu, start, number, count = time.process_time(), time.monotonic(), 0, int(rate * seconds)
    client.start = start
    while number < count:
        due = min(count, int((time.monotonic() - start) * rate) + 1)
        for scheduled in range(number, due):
            client.ask(scheduled / rate)
        number = max(number, due)
        await asyncio.sleep(TICK_SECONDS)
    end = time.monotonic() + LINGER_SECONDS
    while client.open and time.monotonic() < end:  # noqa: ASYNC110 once per run, for a few answers
        await asyncio.sleep(TICK_SECONDS)
    client.close()
    client.account.cpu_seconds = time.process_time() - cpu
    return client.account


class _Client:
    """The open connections: those that wait for an answer (`open`) and the idle ones."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.account = Account()
        self.request = request
        self.start = 0.0
        self.open: set[_Connection] = set()
        self.idle: list[_Connection] = []
        self._address = (host, port)
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()

    def ask(self, at: float) -> None:
        """Sends the request that was due at `at` seconds of the run."""
        if self.idle:
            self.idle.pop().send(at)
            return
        connection = _Connection(self, at)
        self.open.add(connection)
        task = self._loop.create_task(self._connect(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: _Connection) -> None:
        try:
            await self._loop.create_connection(lambda: connection, *self._address)
        except OSError:
            connection.end(0)

    def close(self) -> None:
        """Counts requests that still wait as unanswered, and closes all connections."""
        for task in self._opening:
            task.cancel()
        for connection in [*self.open]:
            connection.end(0)
        for connection in self.idle:
            connection.transport.close()


class _Connection(asyncio.Protocol):
    """A connection with at most one request at a time."""

    transport: asyncio.Transport

    def __init__(self, client: _Client, at: float) -> None:
        self._client = client
        self._at = at
        self._late = 0.0
        self._answer = b""
        self._size = 0  # bytes of the answer; 0 until its head is complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it
        self.send(self._at)

    def send(self, at: float) -> None:
        self._at, self._answer, self._size = at, b"", 0
        self._late = time.monotonic() - self._client.start - at
        self._client.open.add(self)
        self.transport.write(self._client.request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._size:
            head, end, _ = self._answer.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._size = len(head) + 4 + int(length)
        if len(self._answer) >= self._size:
            self.end(int(self._answer[9:12]))
            if b"connection: close" in self._answer[: self._size].lower():
                self.transport.close()
            else:
                self._client.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._client.open:
            self.end(0)
        elif self in self._client.idle:
            self._client.idle.remove(self)

    def end(self, status: int) -> None:
        """Records the status of the request; 0: no answer."""
        self._client.open.discard(self)
        account = self._client.account
        account.scheduled.append(self._at)
        account.late.append(self._late)
        account.seconds.append(time.monotonic() - self._client.start - self._at)
        account.statuses.append(status)
