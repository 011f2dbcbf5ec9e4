"""Rules of the protocol that are the same over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from convoy.errors import InvalidInput
from convoy.protos import open_inference_pb2 as pb
from convoy.wire.oip_grpc import parse_message
from convoy.wire.oip_http import InferRequest, RequestedOutput, parse_request
from convoy.wire.oip_http_client import render_request
from convoy.wire.tensors import BYTES, Tensor

Document = dict[str, Any]
TENSOR: Document = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}


def over_http(document: Document) -> InferRequest:
    return parse_request(orjson.dumps(document), None)


def over_grpc(document: Document) -> InferRequest:
    message = pb.ModelInferRequest(id=document.get("id", ""))
    for tensor in document["inputs"]:
        entry = message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        entry.contents.fp32_contents.extend(tensor["data"])
        set_parameters(entry.parameters, tensor)
    for output in document.get("outputs", []):
        set_parameters(message.outputs.add(name=output["name"]).parameters, output)
    set_parameters(message.parameters, document)
    return parse_message(message)


def set_parameters(parameters: Any, document: Document) -> None:
    fields = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for key, value in document.get("parameters", {}).items():
        setattr(parameters[key], fields[type(value)], value)


both = pytest.mark.parametrize("parse", [over_http, over_grpc])
Parse = Callable[[Document], InferRequest]


@both
def test_all_fields_of_a_request_are_parsed(parse: Parse) -> None:
    request = parse(
        {
            "id": "7",
            "inputs": [TENSOR],
            "outputs": [{"name": "y", "parameters": {"classification": 3}}, {"name": "z"}],
            "parameters": {"priority": 1, "note": "n", "ratio": 0.5, "flag": True},
        }
    )
    assert request.id == "7"
    assert request.outputs == (RequestedOutput("y", classes=3), RequestedOutput("z"))
    assert request.parameters == {"priority": 1, "note": "n", "ratio": 0.5, "flag": True}


@both
@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"inputs": []}, "at least one tensor"),
        ({"inputs": [TENSOR, TENSOR]}, "input 'x' is named more than once"),
        ({"inputs": [TENSOR], "outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y' is named more than once"),
        ({"inputs": [TENSOR | {"parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        (
            {"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]},
            "shared memory",
        ),
        ({"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "classification"),
        ({"inputs": [TENSOR], "outputs": [{"name": "y", "parameters": {"classification": True}}]}, "classification"),
        ({"inputs": [TENSOR | {"shape": [-1]}]}, "dimension of -1"),
        ({"inputs": [TENSOR | {"shape": [2**62, 2**62]}]}, "1 elements"),
        ({"inputs": [TENSOR | {"shape": [1] * 17}]}, "17 dimensions"),
        ({"inputs": [TENSOR | {"datatype": "FP33"}]}, "unknown datatype 'FP33'"),
        ({"inputs": [TENSOR | {"data": [1.0, 2.0]}]}, "has 2 elements; its shape needs 1"),
        ({"inputs": [TENSOR | {"data": []}]}, "has 0 elements; its shape needs 1"),
    ],
)
def test_requests_that_break_a_rule_are_refused(parse: Parse, document: Document, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        parse(document)


@pytest.mark.parametrize("value", [None, [], {}, [1]])
def test_parameters_over_http_must_be_scalars(value: Any) -> None:
    with pytest.raises(InvalidInput, match="parameter 'a'"):
        over_http({"inputs": [TENSOR], "parameters": {"a": value}})


def test_parameters_over_grpc_must_have_a_value() -> None:
    message = pb.ModelInferRequest(raw_input_contents=[bytes(4)])
    message.inputs.add(name="x", datatype="FP32", shape=[1])
    message.parameters["a"].SetInParent()
    with pytest.raises(InvalidInput, match="parameter 'a'"):
        parse_message(message)


def test_empty_typed_contents_beside_raw_contents_are_ignored() -> None:
    message = pb.ModelInferRequest(raw_input_contents=[bytes(4)])
    message.inputs.add(name="x", datatype="FP32", shape=[1]).contents.SetInParent()
    assert parse_message(message).inputs[0].array.tolist() == [0.0]


def test_the_form_of_each_output_can_be_requested() -> None:
    outputs = (RequestedOutput("a", binary=True), RequestedOutput("b", binary=False, classes=2), RequestedOutput("c"))
    request = InferRequest((Tensor("x", BYTES, (1,), [b"\xff"]),), outputs, "7", {"priority": 1}, True)
    parsed = parse_request(*render_request(request))
    assert parsed.outputs == outputs
    assert parsed.binary_output
    assert parsed.parameters == {"priority": 1, "binary_data_output": True}
