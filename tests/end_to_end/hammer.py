"""Closed-loop clients that count every outcome: answers by status, refused connections, and connections lost in flight."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from convoy.protos import classifier_pb2
from convoy.protos.classifier_pb2_grpc import ClassifierStub

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

REFUSED, LOST = "refused", "lost"


@dataclass
class Outcomes:
    """What clients met so far; `stop` ends them after the request they are at."""

    counts: Counter[Any] = field(default_factory=Counter)
    stop: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, outcome: Any) -> None:
        with self.changed:
            self.counts[outcome] += 1
            self.changed.notify_all()

    def wait_for(self, outcome: Any, more: int) -> None:
        """Returns after `more` further outcomes of this kind."""
        with self.changed:
            wanted = self.counts[outcome] + more
            assert self.changed.wait_for(lambda: self.counts[outcome] >= wanted, 300), self.counts


@contextmanager
def hammering(port: int, model: str, body: bytes, connections: int, keep_alive: bool) -> Iterator[Outcomes]:
    """HTTP clients that post `body` again and again until the block ends."""
    outcomes = Outcomes()
    line = "" if keep_alive else "connection: close\r\n"
    head = f"POST /v1/models/{model}/classify HTTP/1.1\r\nhost: x\r\n{line}content-length: {len(body)}\r\n\r\n"

    async def all_clients() -> None:
        await asyncio.gather(*(_client(port, head.encode() + body, outcomes) for _ in range(connections)))

    thread = threading.Thread(target=lambda: asyncio.run(all_clients()))
    thread.start()
    try:
        yield outcomes
    finally:
        outcomes.stop = True
        thread.join()


async def _client(port: int, request: bytes, outcomes: Outcomes) -> None:
    connection: Connection | None = None
    while not outcomes.stop:
        try:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port)
            status, closes = await _exchange(*connection, request)
        except ConnectionRefusedError:
            outcomes.add(REFUSED)
            await asyncio.sleep(0.05)
        except (OSError, asyncio.IncompleteReadError):
            outcomes.add(LOST)
            connection = None
        else:
            outcomes.add(status)
            if closes:
                connection[1].close()
                connection = None
    if connection is not None:
        connection[1].close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bool]:
    """Status of the answer, and whether the server closes the connection after it."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12]), b"connection: close" in head


@contextmanager
def calling(port: int, model: str, body: bytes, threads: int) -> Iterator[Outcomes]:
    """gRPC clients with a channel each, which follow GOAWAY as every channel does, until the block ends."""
    outcomes = Outcomes()

    def client() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            stub = ClassifierStub(channel)  # type: ignore[no-untyped-call]
            request = classifier_pb2.ClassifyRequest(model=model, images=[body])
            while not outcomes.stop:
                try:
                    stub.Classify(request, timeout=60)
                except grpc.RpcError as error:
                    outcomes.add(error.code().name)
                else:
                    outcomes.add("OK")

    clients = [threading.Thread(target=client) for _ in range(threads)]
    for one in clients:
        one.start()
    try:
        yield outcomes
    finally:
        outcomes.stop = True
        for one in clients:
            one.join()
