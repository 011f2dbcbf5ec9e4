"""Classifies one image over every protocol, in turns within one run, so that other load affects all protocols equally."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks import nets
from benchmarks.load import Load, h2load, wrk
from benchmarks.sections import GRPC_PATH, OCTETS, Row, Setup, classify, model
from benchmarks.server import Server, serving
from convoy.protos import classifier_pb2, open_inference_pb2

CLIENTS, STREAMS = 4, 8  # of h2load; wrk opens one connection per request in flight
INFER_PATH = "inference.GRPCInferenceService/ModelInfer"
TURNS = 5
BASE = "HTTP, classify"

Way = Callable[[], Load]


def protocols(setup: Setup) -> list[Row]:
    """LeNet-5, the same PNG over every protocol, 32 in flight; each rate is compared with that of `classify` in the same turn."""
    net = setup.lenet5()
    seconds = max(1.0, setup.seconds / TURNS)
    with serving(setup.scratch, [model(net)]) as server:
        found = ways(server, net, setup.scratch, seconds)
        loads: dict[str, list[Load]] = {name: [] for name in found}
        for _ in range(TURNS):
            for name, way in found.items():
                loads[name].append(way())
    return [beside(name, of_way, loads[BASE]) for name, of_way in loads.items()]


def ways(server: Server, net: nets.Net, scratch: Path, seconds: float) -> dict[str, Way]:
    """The loads by protocol, all with the same image. `BASE` comes first."""
    image = net.image.read_bytes()
    in_flight = CLIENTS * STREAMS
    infer, body, raw = (
        f"{server.http}/v2/models/{net.name}/infer",
        scratch / "image.oip",
        "Inference-Header-Content-Length",
    )
    headers = OCTETS | {raw: str(infer_body(image, body))}
    grpc = f"http://127.0.0.1:{server.grpc_port}"
    request = classifier_pb2.ClassifyRequest(model=net.name, images=[image])
    tensors = open_inference_pb2.ModelInferRequest(model_name=net.name, raw_input_contents=[_element(image)])
    tensors.inputs.add(name="image", datatype="BYTES", shape=[1])

    def over_grpc(path: str, message: Any) -> Way:
        file = scratch / f"{path.rpartition('/')[2]}.bin"
        file.write_bytes(nets.grpc_frame(message.SerializeToString()))
        return partial(h2load, f"{grpc}/{path}", file, CLIENTS, STREAMS, round(3000 * seconds))

    return {
        BASE: partial(wrk, classify(server, net.name), net.image, in_flight, seconds, OCTETS),
        "HTTP, Open Inference binary": partial(wrk, infer, body, in_flight, seconds, headers),
        "HTTP, Open Inference raw body": partial(wrk, infer, net.image, in_flight, seconds, OCTETS | {raw: "0"}),
        "gRPC, Classify": over_grpc(GRPC_PATH, request),
        "gRPC, ModelInfer": over_grpc(INFER_PATH, tensors),
    }


def infer_body(image: bytes, path: Path) -> int:
    """Writes an Open Inference request with an encoded image as binary data; returns the length of its JSON part."""
    raw = _element(image)
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    path.write_bytes(head + raw)
    return len(head)


def _element(image: bytes) -> bytes:
    return len(image).to_bytes(4, "little") + image


def beside(name: str, loads: list[Load], base: list[Load]) -> Row:
    """Medians over the turns. `base` holds the loads of the classify path in the same turns."""
    ratios = [load.rps / reference.rps for load, reference in zip(loads, base, strict=True)]
    return {
        "name": name,
        "rps": statistics.median(load.rps for load in loads),
        "of_classify": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "failed": sum(load.failed for load in loads),
    }
