"""The requests that the servers are measured with, and the label in each server's response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import orjson

from benchmarks.nets import Net, grpc_frame
from benchmarks.plain_engine import Engine, Floats, decode
from convoy.protos import open_inference_pb2 as messages
from convoy.protos import open_inference_pb2_grpc as stubs

LENGTH = "inference-header-content-length"
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Payload:
    """A file to post, and its headers."""

    body: Path
    headers: Mapping[str, str]

    def post(self, url: str) -> httpx.Response:
        """Posts it once."""
        return httpx.post(url, content=self.body.read_bytes(), headers=dict(self.headers), timeout=10)


def image(net: Net) -> Payload:
    """The encoded image as the raw body."""
    return Payload(net.image, OCTETS)


def image_tensor(net: Net, scratch: Path) -> Payload:
    """The encoded image as a binary BYTES tensor of the Open Inference Protocol, [1, 1]."""
    return _infer(scratch / "image.oip", "image", "BYTES", [1, 1], _element(net))


def float_tensor(net: Net, scratch: Path) -> Payload:
    """The decoded image as a binary FP32 tensor of the Open Inference Protocol."""
    rows = _rows(net)
    return _infer(scratch / "tensor.oip", "input", "FP32", list(rows.shape), rows.tobytes())


def message(net: Net, model: str, kind: str) -> Any:
    """The same two tensors as a ModelInfer request; `kind` is image or tensor."""
    request = messages.ModelInferRequest(model_name=model)
    if kind == "image":
        request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(_element(net))
    else:
        rows = _rows(net)
        request.inputs.add(name="input", datatype="FP32", shape=rows.shape)
        request.raw_input_contents.append(rows.tobytes())
    return request


def framed(request: Any, path: Path) -> Path:
    """Writes a message as h2load sends it. Returns the path."""
    path.write_bytes(grpc_frame(request.SerializeToString()))
    return path


def expected_label(net: Net) -> int:
    """Index of the likeliest class, computed in this process."""
    return int(Engine(str(net.onnx), 1).run(_rows(net))[0].argmax())


def http_label(response: httpx.Response) -> int:
    """Index of the likeliest class in a response: JSON with `top5`, binary logits, or a BYTES tensor of such JSON."""
    length = response.headers.get(LENGTH)
    if length is None:
        return int(response.json()["top5"][0][0])
    (output,) = orjson.loads(response.content[: int(length)])["outputs"]
    return _label(output["datatype"], response.content[int(length) :])


def grpc_label(address: str, request: Any) -> int:
    """Index of the likeliest class in the response of a ModelInfer call. Raises grpc.RpcError."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = stubs.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        response = stub.ModelInfer(request, timeout=10)
    return _label(response.outputs[0].datatype, response.raw_output_contents[0])


def _label(datatype: str, raw: bytes) -> int:
    if datatype == "FP32":
        return int(np.frombuffer(raw, np.float32).argmax())
    return int(orjson.loads(raw[4:])[0][0])


def _infer(path: Path, name: str, datatype: str, shape: list[int], raw: bytes) -> Payload:
    tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    path.write_bytes(head + raw)
    return Payload(path, OCTETS | {LENGTH: str(len(head))})


def _element(net: Net) -> bytes:
    encoded = net.image.read_bytes()
    return len(encoded).to_bytes(4, "little") + encoded


def _rows(net: Net) -> Floats:
    return decode(net.image.read_bytes(), net.gray)
