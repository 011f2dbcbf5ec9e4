"""`python -m tests.end_to_end.triton_script CLIENT HOST:PORT IMAGE KEY`: checks Convoy with an unmodified tritonclient.

CLIENT is http, http.aio, grpc or grpc.aio. It runs in a separate process, because tritonclient registers the same protobuf
package as Convoy. Exits with 0 on success.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

MODEL = "lenet5-mnist"


async def settle(value: Any) -> Any:
    """The result of a call of a synchronous or asynchronous client."""
    return await value if inspect.isawaitable(value) else value


def field(document: Any, name: str) -> Any:
    """A field of a JSON document (HTTP) or a message (gRPC)."""
    return document[name] if isinstance(document, dict) else getattr(document, name)


async def check_metadata(client: Any) -> None:
    for question in (client.is_server_live(), client.is_server_ready(), client.is_model_ready(MODEL)):
        assert await settle(question)
    server = await settle(client.get_server_metadata())
    assert field(server, "name") == "convoy"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(field(server, "extensions"))
    assert "model_repository" not in field(server, "extensions")  # Triton's `load` accepts a config, Convoy's does not
    metadata = await settle(client.get_model_metadata(MODEL))
    assert [field(tensor, "datatype") for tensor in field(metadata, "inputs")] == ["BYTES"]
    config = await settle(client.get_model_config(MODEL))
    config = config if isinstance(config, dict) else config.config
    assert field(config, "max_batch_size") > 0
    index = await settle(client.get_model_repository_index())
    entries = index if isinstance(index, list) else index.models
    assert MODEL in [field(entry, "name") for entry in entries]


async def check_infer(kit: Any, client: Any, image: bytes, options: list[dict[str, Any]]) -> None:
    asked = kit.InferInput("image", [1, 1], "BYTES")
    asked.set_data_from_numpy(np.array([[image]], np.object_))
    calls: list[dict[str, Any]] = [{}, {"request_id": "7"}, {"priority": 1, "timeout": 5_000_000}, *options]
    for more in calls:
        result = await settle(client.infer(MODEL, [asked], **more))
        assert result.as_numpy("logits").shape == (1, 10)
        assert result.as_numpy("logits").argmax() == 7
    wanted = kit.InferRequestedOutput("logits", class_count=2)
    best = (await settle(client.infer(MODEL, [asked], outputs=[wanted]))).as_numpy("logits")
    assert best.shape == (1, 2)
    assert best[0, 0].split(b":")[1:] == [b"7", b"7"]
    floats = np.random.default_rng(0).normal(size=(3, 1, 32, 32)).astype(np.float32)
    tensor = kit.InferInput("input", list(floats.shape), "FP32")
    tensor.set_data_from_numpy(floats)
    assert (await settle(client.infer(f"{MODEL}-tensor", [tensor]))).as_numpy("logits").shape == (3, 10)
    for model, text in (("nobody", "unknown model"), (f"{MODEL}-tensor", "image")):
        with pytest.raises(InferenceServerException, match=text):
            await settle(client.infer(model, [asked]))


async def check_no_compression(kit: Any, client: Any) -> None:
    asked = kit.InferInput("image", [1, 1], "BYTES")
    asked.set_data_from_numpy(np.array([[b"0" * 1000]], np.object_))  # clients skip compression that does not help
    for name in ("gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="compression_algorithm=None") as refused:
            await settle(client.infer(MODEL, [asked], compression_algorithm=name))
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


async def count_inferences(client: Any) -> int:
    (statistics,) = field(await settle(client.get_inference_statistics(MODEL)), "model_stats")
    assert field(statistics, "name") == MODEL
    return int(field(statistics, "inference_count"))


async def is_ready(client: Any, model: str) -> bool:
    """Whether a model is ready. An unloaded model is False over HTTP and an error over gRPC."""
    try:
        return bool(await settle(client.is_model_ready(model)))
    except InferenceServerException:
        return False


async def check_repository(client: Any, model: str, key: str) -> None:
    with pytest.raises(InferenceServerException, match="API key"):
        await settle(client.unload_model(model))
    admin = {"authorization": f"Bearer {key}"}
    await settle(client.unload_model(model, headers=admin))
    assert not await is_ready(client, model)
    await settle(client.load_model(model, headers=admin))
    assert await is_ready(client, model)


STREAMED = (b"", b"no image", b"")  # the error in the middle must not end the stream


def stream_inputs(kit: Any, image: bytes) -> list[Any]:
    inputs = []
    for body in STREAMED:
        tensor = kit.InferInput("image", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[body or image]], np.object_))
        inputs.append([tensor])
    return inputs


def check_streamed(answers: list[tuple[Any, Any]]) -> None:
    """Checks that the results and errors of a stream are in the order of its requests."""
    assert [error is None for _, error in answers] == [not body for body in STREAMED]
    assert answers[-1][0].as_numpy("logits").argmax() == 7


def check_stream(kit: Any, client: Any, image: bytes) -> None:
    """Checks the streaming call of the synchronous client."""
    answers: list[tuple[Any, Any]] = []
    client.start_stream(lambda result, error: answers.append((result, error)))
    for inputs in stream_inputs(kit, image):
        client.async_stream_infer(MODEL, inputs)
    client.stop_stream()
    check_streamed(answers)


async def check_async_stream(kit: Any, client: Any, image: bytes) -> None:
    """Checks the streaming call of the asyncio client."""

    async def questions() -> AsyncIterator[dict[str, Any]]:
        for inputs in stream_inputs(kit, image):
            yield {"model_name": MODEL, "inputs": inputs}

    check_streamed([answer async for answer in client.stream_infer(questions())])


async def main(kind: str, address: str, image: bytes, key: str) -> None:
    kit = importlib.import_module(f"tritonclient.{kind}")
    client = kit.InferenceServerClient(address)
    over_http = ("request_compression_algorithm", "response_compression_algorithm")
    options = [dict.fromkeys(over_http, name) for name in ("gzip", "deflate")]
    if "grpc" in kind:
        options = [{}, {}]
        await check_no_compression(kit, client)
    await check_metadata(client)
    before = await count_inferences(client)
    await check_infer(kit, client, image, options)
    assert await count_inferences(client) >= before + 4
    await check_repository(client, "faulty", key)
    if kind == "grpc":
        check_stream(kit, client, image)
    if kind == "grpc.aio":
        await check_async_stream(kit, client, image)
    await settle(client.close())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes(), sys.argv[4]))
