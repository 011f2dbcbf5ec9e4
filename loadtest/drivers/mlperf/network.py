"""A server as the system under test, over HTTP or gRPC.

Threads: LoadGen issues on its own thread, which holds the interpreter's lock only while it appends to a queue. Requests and
answers belong to one event loop in a second thread. A query wakes that loop only if no wake-up is already pending.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from time import monotonic

import uvloop

from convoy.errors import ConfigError
from loadtest.drivers.mlperf.system import NO_CLASS, Account, Completed, System
from loadtest.payloads import Item, prepare
from loadtest.plan import Target, Traffic
from loadtest.wire import outcomes
from loadtest.wire.answers import Answer, reader_for
from loadtest.wire.calls import Call, Transport
from loadtest.wire.metadata import resolve_traffic
from loadtest.wire.requests import Request, build_request
from loadtest.worker.session import open_transport

KEPT_BYTES = 512 * 1024 * 1024  # requests built before the run; any other is built when it is sent


@dataclass(frozen=True)
class ServerSubject:
    """A model of a server. A request carries at most `traffic.batch` samples; at most `concurrency` are in flight."""

    target: Target
    traffic: Traffic
    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError("--concurrency must be at least 1")

    @property
    def label(self) -> str:
        return f"{self.target.url} {self.traffic.model}"

    def open(self, seed: int) -> System:
        traffic = resolve_traffic(self.target, self.traffic)
        prepared = prepare(traffic.payload, seed)
        build_request(self.target, traffic, prepared.items[:1] * traffic.batch)  # unusable options fail before the run
        return NetworkSystem(self.target, traffic, self.concurrency, prepared.items, prepared.about)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request in flight: the ids of its samples in LoadGen, and the request."""

    ids: tuple[int, ...]
    request: Request


class NetworkSystem:
    """Sends samples in the order of their issue, up to `traffic.batch` in a request."""

    def __init__(self, target: Target, traffic: Traffic, concurrency: int, items: tuple[Item, ...], about: str) -> None:
        self.account = Account()
        self.on_complete: Completed = lambda ids, classes: None
        self.about = about
        self.sample_count = len(items)
        self._target, self._traffic, self._items = target, traffic, items
        self._concurrency = concurrency
        self._read = reader_for(target.protocol)
        self._counts_rows = target.protocol != "raw"  # a raw answer may have any form
        self._built: dict[tuple[int, ...], Request] = {}
        self._waiting: deque[tuple[int, int]] = deque()
        self._sent: dict[int, Sent] = {}
        self._number = 0
        self._woken = False
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)
        self._thread.start()
        try:
            self._transport = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        except OSError as error:
            raise ConfigError(f"cannot find {target.host}: {error}") from error

    async def _open(self) -> Transport:
        return open_transport(self._target, self._done)

    def load(self, indices: list[int]) -> None:
        """Builds the requests for samples that are issued in this order again and again, as the offline scenario does."""
        self._built.clear()
        size, step = 0, self._traffic.batch
        for first in range(0, math.lcm(len(indices), step), step):
            key = tuple(indices[place % len(indices)] for place in range(first, first + step))
            request = self._built[key] = self._build(key)
            size += len(request.data)
            if size > KEPT_BYTES:
                break

    def _build(self, key: tuple[int, ...]) -> Request:
        return build_request(self._target, self._traffic, tuple(self._items[index] for index in key))

    def issue(self, ids: list[int], indices: list[int]) -> None:
        self._waiting.extend(zip(ids, indices, strict=True))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._send)

    def _send(self) -> None:
        self._woken = False  # first: a sample that is issued from now on wakes the loop again
        while self._waiting and len(self._sent) < self._concurrency:
            count = min(self._traffic.batch, len(self._waiting))
            ids, indices = zip(*(self._waiting.popleft() for _ in range(count)), strict=True)
            request = self._built.get(indices) or self._build(indices)
            self._number += 1
            self._sent[self._number] = Sent(ids, request)
            self._transport.start(Call(self._number, 0, request, monotonic()))

    def _done(self, call: Call, outcome: int, body: bytes, json_length: int | None) -> None:
        sent = self._sent.pop(call.index)
        classes = [NO_CLASS] * len(sent.ids)
        if outcomes.is_ok(outcome):
            try:
                answer = self._check(sent, body, json_length)
                classes = [index for index, _ in answer.classes] or classes
            except Exception as error:  # noqa: BLE001 a sample that is never completed would stop the run for good
                outcome, body = outcomes.MALFORMED, str(error).encode()
        if outcomes.is_ok(outcome):
            self.account.answered += len(sent.ids)
        else:
            self.account.fail(outcomes.outcome_name(outcome), len(sent.ids), body.decode("utf-8", "replace"))
        self.on_complete(sent.ids, classes)
        if self._waiting and not self._woken:  # not a direct call: a transport that fails at once would recurse
            self._woken = True
            self._loop.call_soon(self._send)

    def _check(self, sent: Sent, body: bytes, json_length: int | None) -> Answer:
        answer = self._read(body, json_length)
        if self._counts_rows and len(answer.classes) != len(sent.ids):
            raise ValueError(f"{len(answer.classes)} classifications for {len(sent.ids)} images")
        if sent.request.is_checked:
            self.account.labelled += sum(label is not None for label in sent.request.expected)
            self.account.correct += answer.correct(sent.request.expected)
        return answer

    def client_cpu_s(self) -> float:
        assert self._thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._transport.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
