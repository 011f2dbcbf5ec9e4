"""The limit for gRPC: a bare server with a greedy batcher and one engine thread.

`python -m benchmarks.limit_grpc PORT native|aio` starts it.

`native` is pygrpc-native, whose HTTP/2 is compiled Rust; `aio` is grpcio's asyncio server. It answers `ModelInfer` of the Open
Inference Protocol for an encoded image (BYTES) or a float tensor, and checks nothing.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import numpy as np
import pygrpc_native.aio
import uvloop

from benchmarks.limit import ask
from benchmarks.plain_engine import decode
from convoy.protos import open_inference_pb2 as messages
from convoy.protos import open_inference_pb2_grpc as stubs


class Inference(stubs.GRPCInferenceServiceServicer):
    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 the name of the call
        tensor, raw = request.inputs[0], request.raw_input_contents[0]
        encoded = tensor.datatype == "BYTES"
        rows = decode(raw[4:]) if encoded else np.frombuffer(raw, np.float32).reshape(tensor.shape)
        logits = await ask(rows)
        output = messages.ModelInferResponse.InferOutputTensor(name="logits", datatype="FP32", shape=[1, len(logits)])
        return messages.ModelInferResponse(
            model_name=request.model_name, outputs=[output], raw_output_contents=[logits.tobytes()]
        )


async def main(port: int, kind: str) -> None:
    server = pygrpc_native.aio.server() if kind == "native" else grpc.aio.server()
    stubs.add_GRPCInferenceServiceServicer_to_server(Inference(), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
