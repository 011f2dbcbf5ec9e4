"""`python -m tests.end_to_end.kserve_script {rest|grpc} ADDRESS IMAGE`: checks a running Convoy with an unmodified KServe client.

It runs in a separate process, because kserve registers the same protobuf package as Convoy. Exits with 0 on success.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import kserve
import numpy as np
import pytest

MODEL = "lenet5-mnist"


def requests(image: bytes) -> list[Any]:
    """Requests and the shapes of their answers: a tensor batch as JSON or typed and as binary or raw contents; an image."""
    floats = np.random.default_rng(0).normal(size=(3, 1, 32, 32)).astype(np.float32)
    found = []
    for binary in (False, True):
        pixels = kserve.InferInput("input", list(floats.shape), "FP32")
        pixels.set_data_from_numpy(floats, binary_data=binary)
        found.append((kserve.InferRequest(f"{MODEL}-tensor", [pixels], request_id="7"), (3, 10)))
    encoded = kserve.InferInput("image", [1, 1], "BYTES")
    encoded.set_data_from_numpy(np.array([[image]], np.object_), binary_data=True)
    parameters = {"binary_data_output": True}
    found.append((kserve.InferRequest(MODEL, [encoded], request_id="8", parameters=parameters), (1, 10)))
    return found


def check_answer(answer: Any, shape: tuple[int, ...]) -> None:
    assert answer.id in ("7", "8")
    assert answer.model_name.startswith(MODEL)
    (output,) = answer.outputs
    assert output.name == "logits"
    assert output.as_numpy().shape == shape
    if shape[0] == 1:
        assert output.as_numpy().argmax() == 7


async def check_rest(url: str, image: bytes) -> None:
    async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
        assert await client.is_server_ready(url)
        assert await client.is_server_live(url)
        assert await client.is_model_ready(url, MODEL)
        assert not await client.is_model_ready(url, "nobody")
        for request, shape in requests(image):
            check_answer(await client.infer(url, request, model_name=request.model_name), shape)
        with pytest.raises(httpx.HTTPStatusError, match="unknown model"):
            await client.infer(url, request, model_name="nobody")
    async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v1")) as client:
        assert await client.is_model_ready(url, MODEL)
        body = {"instances": [{"image_bytes": {"b64": base64.b64encode(image).decode()}}]}
        answer = await client.infer(url, body, model_name=MODEL)
        assert answer["predictions"][0]["classes"][0]["label"] == "7"


async def check_grpc(address: str, image: bytes) -> None:
    async with kserve.InferenceGRPCClient(address) as client:
        assert await client.is_server_ready()
        assert await client.is_server_live()
        assert await client.is_model_ready(MODEL)
        for request, shape in requests(image):
            check_answer(await client.infer(request), shape)
        with pytest.raises(grpc.RpcError, match="unknown model"):
            await client.is_model_ready("nobody")


async def main(kind: str, address: str, image: bytes) -> None:
    await {"rest": check_rest, "grpc": check_grpc}[kind](address, image)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
