"""The raw limit: what Python allows to a server that does nothing but parse, batch and run.

`python -m benchmarks.limit_raw PORT` starts it.

An asyncio protocol on httptools without ASGI, tasks or futures; batches run on the event loop, and all responses of a batch share
one head. It answers the requests of benchmarks/limit.py, one at a time on each connection, and checks nothing.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import numpy as np
import orjson
import uvloop

from benchmarks.limit import LENGTH, output
from benchmarks.plain_engine import BATCH, Floats, decode, open_engine, top5

JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
TENSOR_HEAD = b"HTTP/1.1 200 OK\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n"


class Batcher:
    """Runs all queued requests in one turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._engine = loop, open_engine()
        self._queue: list[tuple[Floats, Connection]] = []
        self._scheduled = False
        self._heads: dict[int, bytes] = {}  # by number of classes

    def put(self, rows: Floats, connection: Connection) -> None:
        self._queue.append((rows, connection))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        batch = self._queue[:BATCH]
        del self._queue[:BATCH]
        rows = batch[0][0] if len(batch) == 1 else np.concatenate([rows for rows, _ in batch])
        logits = self._engine.run(rows)
        values, width = logits.tobytes(), logits[0].nbytes
        head = self._heads.get(width) or self._tensor_head(logits[0])
        for place, (_, connection) in enumerate(batch):
            if connection.tensor:
                connection.write(head + values[place * width : (place + 1) * width])
            else:
                content = orjson.dumps({"top5": top5(logits[place])})
                connection.write(JSON_HEAD % len(content) + content)
        self._scheduled = bool(self._queue)
        if self._queue:
            self._loop.call_soon(self._run)

    def _tensor_head(self, logits: Floats) -> bytes:
        json, values = output(logits)
        head = TENSOR_HEAD % (len(json), len(json) + len(values)) + json
        self._heads[len(values)] = head
        return head


class Connection(asyncio.Protocol):
    """A connection; httptools calls its `on_…` methods."""

    def __init__(self, batcher: Batcher, shapes: dict[bytes, list[int]]) -> None:
        self._batcher, self._shapes = batcher, shapes
        self._parser = httptools.HttpRequestParser(self)
        self.tensor = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.WriteTransport, transport).write  # uvloop's transports do not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        length = self._headers.get(LENGTH)
        self.tensor = length is not None
        if length is None:
            self._batcher.put(decode(self._body), self)
            return
        head = self._body[: int(length)]
        shape = self._shapes.get(head)
        if shape is None:  # equal requests are parsed once
            shape = self._shapes[head] = orjson.loads(head)["inputs"][0]["shape"]
        self._batcher.put(np.frombuffer(self._body, np.float32, offset=len(head)).reshape(shape), self)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    batcher, shapes = Batcher(loop), dict[bytes, list[int]]()
    server = await loop.create_server(lambda: Connection(batcher, shapes), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
