"""Starts the echo server on free ports, prints them, and serves until its standard input ends."""

from __future__ import annotations

import asyncio
import sys

import uvicorn

from tests.loadtest.echo_grpc import grpc_server
from tests.loadtest.echo_server import app


async def serve() -> None:
    listener = uvicorn.Config(app, port=0, lifespan="off", log_level="critical", access_log=False, ws="none")
    http = uvicorn.Server(listener)
    socket = listener.bind_socket()
    socket.listen()
    server = grpc_server()
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    task = asyncio.create_task(http.serve(sockets=[socket]))
    sys.stdout.write(f"{socket.getsockname()[1]} {grpc_port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)
    http.should_exit = http.force_exit = True
    await task


if __name__ == "__main__":
    asyncio.run(serve())
