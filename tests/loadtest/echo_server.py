"""A small real server with known answers and faults; the name of a model selects its behaviour.

It serves classify and Open Inference over HTTP (uvicorn) and gRPC (grpc.aio), Prometheus metrics, feedback and /counts.
`python -m tests.loadtest.echo_main` prints its two ports and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from typing import Any

import numpy as np
import orjson

from convoy.errors import InvalidInput
from convoy.wire.oip_http import InferRequest, InferResponse, parse_request, render_response
from convoy.wire.tensors import BYTES, Tensor

CLASSES = 10
ENGINE_S = 0.005
STALL_FROM_S, STALL_UNTIL_S = 1.0, 2.0
Scope = dict[str, Any]


def class_of(image: bytes) -> int:
    """The class that the server returns for an image; tests can compute it too."""
    return zlib.crc32(image) % CLASSES


class Refuse(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


class Behaviour:
    """State shared by all protocols: counts, faults by model name, and one engine with a fixed cost."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.ids: set[str] = set()
        self._engine_free = 0.0
        self._first: dict[str, float] = {}
        self.connections = 0

    async def before(self, model: str) -> None:
        """Waits, hangs or raises Refuse, depending on the model's name."""
        self.counts[model] += 1
        loop = asyncio.get_running_loop()
        if model == "busy" and self.counts[model] % 3 == 0:
            raise Refuse(503, "queue full")
        if model == "missing":
            raise Refuse(404, "unknown model")
        if model == "hang" and self.counts[model] % 4 == 0:
            await asyncio.sleep(3600)
        if model.startswith("stall"):
            since = loop.time() - self._first.setdefault(model, loop.time())
            if STALL_FROM_S <= since < STALL_UNTIL_S:
                await asyncio.sleep(STALL_UNTIL_S - since)
        if model == "engine" or model.startswith("engine-"):
            self._engine_free = max(loop.time(), self._engine_free) + ENGINE_S
            await asyncio.sleep(self._engine_free - loop.time())
        if model.startswith("slow"):
            await asyncio.sleep(0.05)

    def arm(self, model: str) -> str:
        return ("a", "b")[self.counts[model] % 2] if model == "arms" else ""

    def new_id(self) -> str:
        self.ids.add(str(len(self.ids)))
        return str(len(self.ids) - 1)


behaviour = Behaviour()


async def read_body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def app(scope: Scope, receive: Any, send: Any) -> None:
    """The ASGI application."""
    if scope["type"] != "http":
        return
    body = await read_body(receive)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    try:
        status, kind, answer = await route(scope["method"], scope["path"], headers, body, send)
    except Refuse as refusal:
        status, kind, answer = refusal.status, {}, orjson.dumps({"error": refusal.text})
    except InvalidInput as error:
        status, kind, answer = 400, {}, orjson.dumps({"error": str(error)})
    if status < 0:
        return
    extra = [(name.encode(), value.encode()) for name, value in kind.items()]
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(answer)), *extra]}
    )
    await send({"type": "http.response.body", "body": answer})


async def route(
    method: str, path: str, headers: dict[str, str], body: bytes, send: Any
) -> tuple[int, dict[str, str], bytes]:
    parts = path.strip("/").split("/")
    if path == "/counts":
        return 200, {}, orjson.dumps(dict(behaviour.counts))
    if path == "/metrics":
        return 200, {}, metrics_page()
    if path in ("/v2/health/ready", "/"):
        return 200, {}, b"{}"
    if path == "/v1/feedback":
        known = orjson.loads(body)["id"] in behaviour.ids
        behaviour.counts["feedback" if known else "unknown feedback"] += 1
        return (200 if known else 404), {}, b"{}"
    model = parts[2] if len(parts) > 2 else parts[-1]
    if method == "GET":
        return 200, {}, orjson.dumps(metadata(model))
    await behaviour.before(model)
    if await misbehave(model, send):
        return -1, {}, b""
    if parts[0] == "predictions":
        return 200, {}, orjson.dumps({"cat": 0.9, "dog": 0.1})
    if parts[0] == "v2":
        return infer_http(model, headers, body)
    return 200, {}, classify(model, [] if model == "short" else images_of(headers, body))


async def misbehave(model: str, send: Any) -> bool:
    """Sends an unusual or broken HTTP answer for some models. Returns whether it did."""
    if model == "reset" and behaviour.counts[model] % 3 == 0:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise ConnectionResetError  # uvicorn then closes the connection
    if model == "garbage":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})
        return True
    if model == "chunked":
        text = classify(model, [b""])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (text[:10], text[10:]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return True
    if model == "closing":
        text = classify(model, [b""])
        heads = [(b"connection", b"close"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": heads})
        await send({"type": "http.response.body", "body": text})
        return True
    return False


def images_of(headers: dict[str, str], body: bytes) -> list[bytes]:
    import base64

    kind = headers.get("content-type", "")
    if kind == "application/json":
        return [base64.b64decode(text) for text in orjson.loads(body)["images"]]
    if kind.startswith("multipart/form-data"):
        boundary = b"--" + kind.partition("boundary=")[2].encode()
        return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in body.split(boundary)[1:-1]]
    return [body]


def classify(model: str, images: list[bytes]) -> bytes:
    rows = [
        {"classes": [{"index": class_of(image), "label": f"class{class_of(image)}", "probability": 0.9}]}
        for image in images
    ]
    document: dict[str, Any] = {"id": behaviour.new_id(), "model": model, "version": "1", "predictions": rows}
    if behaviour.arm(model):
        document["arm"] = behaviour.arm(model)
    return orjson.dumps({**document, "timings_ms": {"queue": 1.0, "run": 2.0, "total": 3.0}, "batch_size": len(images)})


def metadata(model: str) -> dict[str, Any]:
    if model.endswith("-tensor"):
        entry = {"name": "input", "datatype": "FP32", "shape": [-1, 3, 8, 8]}
    else:
        entry = {"name": "image", "datatype": "BYTES", "shape": [-1]}
    outputs = [{"name": "logits", "datatype": "FP32", "shape": [-1, CLASSES]}]
    return {"name": model, "versions": ["1"], "platform": "echo", "inputs": [entry], "outputs": outputs}


def logits(tensor: Tensor) -> Tensor:
    """One-hot logits: the class of each image, or class 0 for tensors."""
    indices = [class_of(image) for image in tensor.data] if isinstance(tensor.data, list) else [0] * tensor.shape[0]
    return Tensor("logits", "FP32", (len(indices), CLASSES), np.eye(CLASSES, dtype=np.float32)[indices])


def infer_http(model: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    length = headers.get("inference-header-content-length")
    if length == "0":
        answer = InferResponse(model, "1", "", (logits(Tensor("image", BYTES, (1,), [body])),))
        return 200, {}, render_response(answer, InferRequest(()))[0]
    request = parse_request(body, None if length is None else int(length))
    output = logits(request.inputs[0])
    if request.outputs and request.outputs[0].classes:
        best = np.asarray(output.data).argmax(axis=1)
        output = Tensor("logits", BYTES, (len(best), 1), [f"0.9:{index}:class{index}".encode() for index in best])
    text, head = render_response(InferResponse(model, "1", request.id, (output,)), request)
    return 200, {} if head is None else {"inference-header-content-length": str(head)}, text


def metrics_page() -> bytes:
    done = sum(count for model, count in behaviour.counts.items() if "feedback" not in model)
    return (
        "# TYPE convoy_stage_seconds histogram\n"
        + "".join(
            f'convoy_stage_seconds_count{{model="m",stage="{stage}"}} {done}\n'
            f'convoy_stage_seconds_sum{{model="m",stage="{stage}"}} {done * cost}\n'
            for stage, cost in (("queue", 0.001), ("run", 0.002))
        )
        + f"# TYPE convoy_samples counter\nconvoy_samples_total {done}\n"
        f"# TYPE convoy_batches counter\nconvoy_batches_total {done / 4}\n"
        "# TYPE convoy_energy_joules counter\n"
        + "".join(
            f'convoy_energy_joules_total{{part="{part}",source="rapl",method="estimated"}} {done * joules}\n'
            for part, joules in (("model", 0.4), ("idle", 0.1))
        )
        + "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 1e8\n"
    ).encode()
