"""Builds the bytes of all requests before the run starts."""

from __future__ import annotations

import base64
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import orjson

from convoy.errors import ConfigError
from convoy.protos import classifier_pb2, open_inference_pb2
from convoy.wire.tensors import BYTES
from loadtest.payloads.item import Expected, Item
from loadtest.plan import Target, Traffic

OCTETS = "application/octet-stream"
GRPC_INFER = "/inference.GRPCInferenceService/ModelInfer"
GRPC_CLASSIFY = "/convoy.v1.Classifier/Classify"


@dataclass(frozen=True)
class Request:
    """`data` is a complete HTTP request or a gRPC message; `path` is its gRPC method; `expected` holds a label per row.

    `deadline_s` is the deadline of a gRPC call in seconds; an HTTP request has it in a header.
    """

    data: bytes
    path: str
    expected: tuple[Expected, ...] = ()
    deadline_s: float | None = None

    @property
    def is_checked(self) -> bool:
        """Whether any row has a true label."""
        return any(label is not None for label in self.expected)


def build_requests(target: Target, traffic: Traffic, items: tuple[Item, ...]) -> tuple[Request, ...]:
    """One request per item; with `batch` > 1 each also carries the items after its own. Raises ConfigError."""
    return tuple(
        build_request(target, traffic, tuple(items[(first + offset) % len(items)] for offset in range(traffic.batch)))
        for first in range(len(items))
    )


def build_request(target: Target, traffic: Traffic, rows: tuple[Item, ...]) -> Request:
    """One request with these rows. Raises ConfigError."""
    deadline = None if traffic.deadline_ms is None else traffic.deadline_ms / 1000
    if target.is_grpc:
        path, data = _grpc_message(target, traffic, rows)
    else:
        path, data = _http_request(target, traffic, rows)
    return Request(data, path, tuple(row.expected for row in rows), deadline)


def _http_request(target: Target, traffic: Traffic, rows: tuple[Item, ...]) -> tuple[str, bytes]:
    path, headers, body = _http_parts(target, traffic, rows)
    if traffic.deadline_ms is not None:
        headers["X-Request-Timeout-Ms"] = f"{traffic.deadline_ms:g}"
    if traffic.priority is not None:
        headers["X-Request-Priority"] = str(traffic.priority)
    return path, http_bytes(target, traffic.path or path, headers, body)


def http_bytes(target: Target, path: str, headers: Mapping[str, str], body: bytes, method: str = "POST") -> bytes:
    """A complete HTTP/1.1 request."""
    parts = urlsplit(target.url)
    lines = [f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in (*headers.items(), *target.headers)]
    if not target.keep_alive:
        lines.append("Connection: close")
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def _http_parts(target: Target, traffic: Traffic, rows: tuple[Item, ...]) -> tuple[str, dict[str, str], bytes]:
    name = quote(traffic.model, safe="")
    if target.protocol == "raw":
        return f"/predictions/{name}", {"Content-Type": OCTETS}, _single(traffic, rows).image or rows[0].row.tobytes()
    if target.protocol.startswith("oip"):
        headers, body = _oip(target, traffic, rows)
        return f"/v2/models/{name}/infer", headers, body
    path = f"/v1/models/{name}/classify"
    if target.protocol == "classify":
        return path, {"Content-Type": OCTETS}, _image(_single(traffic, rows))
    if target.protocol == "classify-json":
        texts = [base64.b64encode(_image(row)).decode() for row in rows]
        return path, {"Content-Type": "application/json"}, orjson.dumps({"images": texts})
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\nContent-Type: {OCTETS}\r\n\r\n'
    body = b"".join(head.encode() + _image(row) + b"\r\n" for row in rows) + f"--{boundary}--\r\n".encode()
    return path, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


def _image(item: Item) -> bytes:
    if not item.image:
        raise ConfigError("classify takes images; send tensors with protocol oip or grpc")
    return item.image


def _single(traffic: Traffic, rows: tuple[Item, ...]) -> Item:
    if len(rows) > 1:
        raise ConfigError(
            f"traffic {traffic.label!r}: one raw body holds one image; use classify-json, oip or grpc for batches"
        )
    return rows[0]


def _tensor(traffic: Traffic, rows: tuple[Item, ...]) -> tuple[dict[str, Any], bytes]:
    """Name, shape and datatype of the only input, and its binary form."""
    payload = traffic.payload
    if payload.kind == "tensor":
        array = np.stack([row.row for row in rows])
        return {
            "name": payload.tensor or "input",
            "shape": list(array.shape),
            "datatype": payload.datatype,
        }, array.tobytes()
    shape = [len(rows), *payload.shape]
    raw = b"".join(struct.pack("<I", len(row.image)) + row.image for row in rows)
    return {"name": payload.tensor or "image", "shape": shape, "datatype": BYTES}, raw


def _oip(target: Target, traffic: Traffic, rows: tuple[Item, ...]) -> tuple[dict[str, str], bytes]:
    if target.protocol == "oip-raw":
        row = _single(traffic, rows)
        return {"Content-Type": OCTETS, "Inference-Header-Content-Length": "0"}, row.image or row.row.tobytes()
    entry, raw = _tensor(traffic, rows)
    document: dict[str, Any] = {"inputs": [entry], "parameters": _oip_parameters(traffic)}
    if _wants_labels(traffic, rows):
        document["outputs"] = [{"name": traffic.output, "parameters": {"classification": 1}}]
    if target.protocol == "oip-json":
        if entry["datatype"] == BYTES:
            raise ConfigError("encoded images are not text, so protocol oip-json cannot carry them; use oip")
        entry["data"] = np.stack([row.row for row in rows]).ravel().tolist()
        return {"Content-Type": "application/json"}, orjson.dumps(document)
    entry["parameters"] = {"binary_data_size": len(raw)}
    document["parameters"]["binary_data_output"] = "outputs" not in document
    head = orjson.dumps(document)
    return {"Content-Type": OCTETS, "Inference-Header-Content-Length": str(len(head))}, head + raw


def _wants_labels(traffic: Traffic, rows: tuple[Item, ...]) -> bool:
    """Whether to request the classification extension: it returns labels as text, and scores alone do not."""
    if not any(isinstance(row.expected, str) for row in rows):
        return False
    if not traffic.output:
        raise ConfigError(f"traffic {traffic.label!r}: labels are text, so `output`, the output's name, is needed")
    return True


def _oip_parameters(traffic: Traffic) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if traffic.priority is not None:
        parameters["priority"] = traffic.priority
    if traffic.deadline_ms is not None:
        parameters["timeout"] = int(traffic.deadline_ms * 1000)  # microseconds, as in Triton
    return parameters


def _grpc_message(target: Target, traffic: Traffic, rows: tuple[Item, ...]) -> tuple[str, bytes]:
    if target.protocol == "grpc-classify":
        images = [_image(row) for row in rows]
        return GRPC_CLASSIFY, classifier_pb2.ClassifyRequest(model=traffic.model, images=images).SerializeToString()
    entry, raw = _tensor(traffic, rows)
    message = open_inference_pb2.ModelInferRequest(model_name=traffic.model, raw_input_contents=[raw])
    message.inputs.add(**entry)
    if _wants_labels(traffic, rows):
        message.outputs.add(name=traffic.output).parameters["classification"].int64_param = 1
    for key, value in _oip_parameters(traffic).items():
        if key == "priority":
            message.parameters[key].uint64_param = value
        else:
            message.parameters[key].int64_param = value
    return GRPC_INFER, message.SerializeToString()
