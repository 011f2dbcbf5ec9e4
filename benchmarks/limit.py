"""The limit, with which servers are compared: a bare ASGI application with plain Pillow, a greedy batcher and one engine thread.

It has no framework, no checks and no metrics. `uvicorn benchmarks.limit:app` serves it; benchmarks/plain_engine.py says what the
environment has to name. A request is an encoded image or, with the header `Inference-Header-Content-Length`, a binary float
tensor of the Open Inference Protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import orjson

from benchmarks.plain_engine import BATCH, Floats, decode, open_engine, top5

Message = MutableMapping[str, Any]
LENGTH = b"inference-header-content-length"

engine = cache(
    open_engine
)  # only once this process is asked: limit_raw imports this module and has an engine of its own
thread = ThreadPoolExecutor(1)
queue: list[tuple[Floats, asyncio.Future[Floats]]] = []
pumping: set[asyncio.Task[None]] = set()


async def pump() -> None:
    """Runs batches until the queue is empty."""
    while queue:
        batch = queue[:BATCH]
        del queue[:BATCH]
        rows = np.concatenate([rows for rows, _ in batch])
        logits = await asyncio.get_running_loop().run_in_executor(thread, engine().run, rows)
        for place, (_, future) in enumerate(batch):
            if not future.done():
                future.set_result(logits[place])


async def ask(rows: Floats) -> Floats:
    """Queues one image, [1, channels, height, width]. Returns its logits [classes]."""
    future: asyncio.Future[Floats] = asyncio.get_running_loop().create_future()
    queue.append((rows, future))
    if not pumping:
        task = asyncio.ensure_future(pump())
        pumping.add(task)
        task.add_done_callback(pumping.discard)
    return await future


def output(logits: Floats) -> tuple[bytes, bytes]:
    """An Open Inference response: its JSON part, and the binary logits."""
    values = logits.tobytes()
    parameters = {"binary_data_size": len(values)}
    tensor = {"name": "logits", "datatype": "FP32", "shape": [1, len(logits)], "parameters": parameters}
    head = orjson.dumps({"model_name": "m", "model_version": "1", "outputs": [tensor]})
    return head, values


async def answer(body: bytes, length: int | None) -> tuple[bytes, int | None]:
    """The response, and the length of its JSON part if it has a tensor.

    `length` is that of the JSON part of a request with a tensor, and None for an encoded image.
    """
    if length is None:
        return orjson.dumps({"top5": top5(await ask(decode(body)))}), None
    shape = orjson.loads(body[:length])["inputs"][0]["shape"]
    head, values = output(await ask(np.frombuffer(body, np.float32, offset=length).reshape(shape)))
    return head + values, len(head)


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    length = dict(scope["headers"]).get(LENGTH)
    content, head = await answer(body, None if length is None else int(length))
    headers = [(b"content-length", str(len(content)).encode())]
    headers.append((b"content-type", b"application/json") if head is None else (LENGTH, str(head).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
