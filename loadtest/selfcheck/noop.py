"""A minimal server with fixed answers, against which the cost of the generator is measured."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import grpc
import grpc.aio
import uvloop

from convoy.protos import classifier_pb2

BODY = (
    b'{"id":"0","model":"m","version":"1","predictions":[{"classes":[{"index":3,"label":"cat","probability":0.98}]}],'
    b'"timings_ms":{"receive":0.01,"decode":0.1,"queue":0.02,"run":0.2,"post":0.01,"total":0.34},"batch_size":1}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
LENGTH = b"content-length: "


class Noop(asyncio.Protocol):
    """Answers each request after its last byte; with `busy_s`, after one shared engine has spent that time on it."""

    engine_free = 0.0

    def __init__(self, busy_s: float) -> None:
        self._busy_s = busy_s
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses of it

    def data_received(self, data: bytes) -> None:
        if self._left == 0:
            head, _, body = data.partition(b"\r\n\r\n")
            at = head.lower().find(LENGTH)
            self._left = int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            data = body
        self._left -= len(data)
        if self._left <= 0:
            self._left = 0
            self._answer()

    def _answer(self) -> None:
        if not self._busy_s:
            self._write()
            return
        loop = asyncio.get_running_loop()
        Noop.engine_free = max(loop.time(), Noop.engine_free) + self._busy_s
        loop.call_at(Noop.engine_free, self._write)

    def _write(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(ANSWER)


async def serve(busy_s: float) -> None:
    """Listens on a free port of the loopback interface and prints it."""
    server = await asyncio.get_running_loop().create_server(lambda: Noop(busy_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def serve_grpc() -> None:
    """Answers every gRPC call with the same classification; prints its port."""
    answer = classifier_pb2.ClassifyResponse(id="0", model="m")
    answer.predictions.add().classes.add(index=3, label="cat", probability=0.98)
    message = answer.SerializeToString()

    async def reply(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return message

    handlers = {"Classify": grpc.unary_unary_rpc_method_handler(reply)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("convoy.v1.Classifier", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if "--grpc" in sys.argv:
        asyncio.run(serve_grpc())
    else:
        uvloop.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
