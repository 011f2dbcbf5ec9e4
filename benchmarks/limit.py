"""The limit, with which servers are compared: a bare uvicorn process with plain Pillow, a greedy batcher and one engine thread.

It has no framework, no checks and no metrics. Start: `BENCH_MODEL=net.onnx BENCH_GRAY=1 uvicorn benchmarks.limit:app`. The graph
takes float32 NCHW. A request is an encoded image or, with the header `Inference-Header-Content-Length`, a binary float tensor of
the Open Inference Protocol.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray
from PIL import Image

GRAY = os.environ.get("BENCH_GRAY") == "1"
BATCH = 32
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]

Message = MutableMapping[str, Any]
Floats = NDArray[Any]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = len(os.sched_getaffinity(0))
session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
engine = ThreadPoolExecutor(1)
queue: list[tuple[Floats, asyncio.Future[Floats]]] = []
pumping: set[asyncio.Task[None]] = set()


def decode(body: bytes) -> Floats:
    """An encoded image as the network's input, [1, channels, height, width]."""
    image = Image.open(io.BytesIO(body))
    if GRAY:
        return np.asarray(image.convert("L").resize((28, 28)), np.float32)[None, None] / 255
    image.draft("RGB", (256, 256))
    rgb = image.convert("RGB")
    scale = 256 / min(rgb.size)
    rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BILINEAR)
    left, top = (rgb.width - 224) // 2, (rgb.height - 224) // 2
    planes = np.asarray(rgb.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1) / 255
    return ((planes - MEAN) / STD)[None]


def run(rows: list[Floats]) -> Floats:
    logits: Floats = session.run(None, {session.get_inputs()[0].name: np.concatenate(rows)})[0]
    return logits


async def pump() -> None:
    """Runs batches until the queue is empty."""
    while queue:
        batch = queue[:BATCH]
        del queue[:BATCH]
        logits = await asyncio.get_running_loop().run_in_executor(engine, run, [rows for rows, _ in batch])
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


def top5(logits: Floats) -> bytes:
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    return orjson.dumps({"top5": [(int(index), float(weights[index])) for index in np.argsort(-weights)[:5]]})


def output(logits: Floats) -> tuple[bytes, bytes]:
    """An Open Inference response: its JSON part, and the binary logits."""
    values = logits.tobytes()
    parameters = {"binary_data_size": len(values)}
    tensor = {"name": "logits", "datatype": "FP32", "shape": [1, len(logits)], "parameters": parameters}
    head = orjson.dumps({"model_name": "m", "model_version": "1", "outputs": [tensor]})
    return head, values


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    length = dict(scope["headers"]).get(b"inference-header-content-length")
    if length is None:
        answer = top5(await ask(decode(body)))
        headers = [(b"content-type", b"application/json")]
    else:
        shape = orjson.loads(body[: int(length)])["inputs"][0]["shape"]
        head, values = output(await ask(np.frombuffer(body, np.float32, offset=int(length)).reshape(shape)))
        answer = head + values
        headers = [(b"inference-header-content-length", str(len(head)).encode())]
    headers.append((b"content-length", str(len(answer)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
