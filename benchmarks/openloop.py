"""An open-loop client as thin as Python allows: requests at a fixed rate, whatever the answers do.

Latency counts from the scheduled time, so that a client that cannot send in time does not hide it.
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

LOOK_SECONDS = 0.001  # between two looks at what is due
LINGER_SECONDS = 5.0  # for the last answers


@dataclass
class Account:
    """Status of every request, 0 without an answer, with its scheduled time, its latency and how late it set off, in seconds."""

    scheduled: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    cpu_seconds: float = 0.0  # that the client itself used

    def count(self, status: int, within: float = float("inf"), after: float = 0.0) -> int:
        """Answers of this status within so many seconds, of requests scheduled `after` that time of the run or later."""
        rows = zip(self.scheduled, self.seconds, self.statuses, strict=True)
        return sum(code == status and seconds <= within and after <= at for at, seconds, code in rows)

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
    assert parts.hostname is not None
    assert parts.port is not None
    client = _Client(parts.hostname, parts.port, head.encode() + b"\r\n" + body)
    cpu, start, number, count = time.process_time(), time.monotonic(), 0, int(rate * seconds)
    client.start = start
    while number < count:
        due = min(count, int((time.monotonic() - start) * rate) + 1)
        for one in range(number, due):
            client.ask(one / rate)
        number = max(number, due)
        await asyncio.sleep(LOOK_SECONDS)
    end = time.monotonic() + LINGER_SECONDS
    while client.open and time.monotonic() < end:  # noqa: ASYNC110 hardly ever, and once a run
        await asyncio.sleep(LOOK_SECONDS)
    client.close()
    client.account.cpu_seconds = time.process_time() - cpu
    return client.account


class _Client:
    """Connections that wait for an answer, and those that wait for a request."""

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
        """What has no answer by now gets none."""
        for task in self._opening:
            task.cancel()
        for connection in [*self.open]:
            connection.end(0)
        for connection in self.idle:
            connection.transport.close()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    transport: asyncio.Transport

    def __init__(self, client: _Client, at: float) -> None:
        self._client = client
        self._at = at
        self._late = 0.0
        self._answer = b""
        self._whole = 0  # bytes of the answer, 0 while its head has not come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no instance of it
        self.send(self._at)

    def send(self, at: float) -> None:
        self._at, self._answer, self._whole = at, b"", 0
        self._late = time.monotonic() - self._client.start - at
        self._client.open.add(self)
        self.transport.write(self._client.request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._whole:
            head, end, _ = self._answer.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._whole = len(head) + 4 + int(length)
        if len(self._answer) >= self._whole:
            self.end(int(self._answer[9:12]))
            if b"connection: close" in self._answer[: self._whole].lower():
                self.transport.close()
            else:
                self._client.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._client.open:
            self.end(0)
        elif self in self._client.idle:
            self._client.idle.remove(self)

    def end(self, status: int) -> None:
        """The request has its answer, 0 for none."""
        self._client.open.discard(self)
        account = self._client.account
        account.scheduled.append(self._at)
        account.late.append(self._late)
        account.seconds.append(time.monotonic() - self._client.start - self._at)
        account.statuses.append(status)
