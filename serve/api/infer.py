"""Infer of the Open Inference Protocol, for HTTP and gRPC: checks the tensors, runs the model, names the outputs."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConvoyError, InvalidInput
from convoy.wire.classification import classify_output
from convoy.wire.oip_http import InferRequest, InferResponse, Parameters, RequestedOutput
from convoy.wire.tensors import BYTES, NAMES, Tensor
from serve.api.answer_energy import answer_energy
from serve.api.classify_params import check_flag
from serve.batching.member_report import OUTCOMES
from serve.batching.results import Answer
from serve.gateway.dataplane import DataPlane, all_logits, check_images
from serve.gateway.endpoints import Endpoint, Work
from serve.gateway.request_context import RequestContext
from serve.telemetry.request_timings import RequestTimings

OUTPUT = "logits"
MAX_PRIORITY = 2**31


async def infer(plane: DataPlane, endpoint: Endpoint, context: RequestContext, request: InferRequest) -> InferResponse:
    """Answers a request. Raises InvalidInput when it does not fit the model."""
    for output in request.outputs:
        if output.name != OUTPUT:
            raise InvalidInput(f"unknown output {output.name[:60]!r}; {endpoint.name} has {OUTPUT!r}")
    with_energy = bool(request.parameters) and check_flag("energy", request.parameters.get("energy", False))
    identifier = request.id
    if endpoint.needs_request_id:
        identifier = context.request_id = context.request_id or plane.new_id()
    context.fields = request.parameters
    answers = await endpoint.answer(context, partial(_answers, plane, request))
    logits = all_logits(answers)
    outputs = tuple(
        _output(endpoint, logits, output.classes) for output in request.outputs or (RequestedOutput(OUTPUT),)
    )
    parameters = _parameters(answers[0], context.timings)
    if with_energy:
        energy = answer_energy(endpoint, answers, context.timings)
        parameters = {**parameters, **{key: value for key, value in energy.items() if value is not None}}
    return InferResponse(endpoint.name, endpoint.version, identifier, outputs, parameters)


async def infer_plain(endpoint: Endpoint, context: RequestContext, identifier: str, work: Work) -> InferResponse:
    """As `infer`, for a request without options whose only tensor the listener has checked. `work` runs it."""
    return plain_response(endpoint, identifier, await endpoint.answer(context, work), context.timings)


def plain_response(
    endpoint: Endpoint, identifier: str, answers: Sequence[Answer], timings: RequestTimings
) -> InferResponse:
    """The response to a request without options."""
    logits = all_logits(answers)
    output = Tensor(OUTPUT, "FP32", logits.shape, logits)
    return InferResponse(endpoint.name, endpoint.version, identifier, (output,), _parameters(answers[0], timings))


async def _answers(
    plane: DataPlane, request: InferRequest, endpoint: Endpoint, context: RequestContext
) -> list[Answer]:
    tensor = _single_input(endpoint, request)
    check_input(endpoint, tensor.name, tensor.datatype, tensor.shape)
    if tensor.datatype == BYTES:
        return await plane.classify(endpoint, context, tensor.elements)
    return await plane.run(endpoint, context, tensor.array)


def apply_parameters(plane: DataPlane, context: RequestContext, request: InferRequest) -> None:
    """Applies the parameters `timeout` (microseconds) and `priority` (from 1; 0 is the default).

    A timeout can only shorten the context's deadline. Raises InvalidInput.
    """
    if "timeout" not in request.parameters and "priority" not in request.parameters:
        return
    timeout, priority = request.parameters.get("timeout"), request.parameters.get("priority", 0)
    if type(priority) is not int or not 0 <= priority <= MAX_PRIORITY:
        raise InvalidInput("parameter priority must be a whole number of at least 0")
    context.priority = priority or context.priority
    if timeout is None:
        return
    if type(timeout) is not int or timeout < 0:
        raise InvalidInput("parameter timeout must be a whole number of microseconds")
    deadline = plane.deadline(context.timings.started, timeout / 1e6 if timeout else None)
    context.deadline = min(deadline, context.deadline)


def _single_input(endpoint: Endpoint, request: InferRequest) -> Tensor:
    expected, inputs = endpoint.input.name, request.inputs
    if len(inputs) != 1 or inputs[0].name != expected:
        names = ", ".join(repr(tensor.name) for tensor in inputs)
        raise InvalidInput(f"{endpoint.name} has one input, {expected!r}; the request has {names[:200]}")
    return inputs[0]


def check_input(endpoint: Endpoint, name: str, datatype: str, shape: tuple[int, ...]) -> None:
    """Checks a tensor's name, type and shape against a model, not its elements. Raises InvalidInput or TooLarge.

    An experiment accepts the tensors that any of its arms accepts; the arm that answers checks again.
    """
    first, *others = endpoint.targets
    try:
        _check_input(first, name, datatype, shape)
    except ConvoyError:
        if not any(_takes(other, name, datatype, shape) for other in others):
            raise


def _takes(endpoint: Endpoint, name: str, datatype: str, shape: tuple[int, ...]) -> bool:
    try:
        _check_input(endpoint, name, datatype, shape)
    except ConvoyError:
        return False
    return True


def _check_input(endpoint: Endpoint, name: str, datatype: str, shape: tuple[int, ...]) -> None:
    if name != endpoint.input.name:
        raise InvalidInput(f"{endpoint.name} has one input, {endpoint.input.name!r}; the request has {name!r}")
    if datatype != BYTES:
        _check_rows(endpoint, datatype, shape)
        return
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise InvalidInput(f"images must have shape [n] or [n, 1], not {list(shape)}")
    check_images(endpoint, math.prod(shape))


def _check_rows(endpoint: Endpoint, datatype: str, shape: tuple[int, ...]) -> None:
    spec = endpoint.input
    expected = NAMES[spec.dtype]
    if datatype != expected:
        also = f" or {BYTES} (encoded images)" if endpoint.form == "image" else ""
        raise InvalidInput(f"input {spec.name!r} is {datatype}; {endpoint.name} takes {expected}{also}")
    if not has_shape(shape, spec.shape):
        raise InvalidInput(f"input {spec.name!r} has shape {list(shape)}; {endpoint.name} takes {list(spec.shape)}")
    check_images(endpoint, shape[0], "rows")


def most_values(endpoint: Endpoint, unknown: int) -> int:
    """The maximum number of values, nested lists included, that a request's tensor needs in JSON.

    `unknown`: the limit for an input with a variable size.
    """
    return max(_most_values(target, unknown) for target in endpoint.targets)


def _most_values(endpoint: Endpoint, unknown: int) -> int:
    if -1 in endpoint.input.shape[1:]:
        return unknown
    return sum(itertools.accumulate((endpoint.most_images, *endpoint.input.shape[1:]), operator.mul))


def has_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape matches `wanted`, in which -1 matches any size from 1."""
    if len(shape) != len(wanted):
        return False
    for size, want in zip(shape, wanted, strict=True):  # noqa: SIM110 a generator takes longer
        if size != want and (want != -1 or size < 1):
            return False
    return True


def _parameters(answer: Answer, timings: RequestTimings) -> Parameters:
    """`arm`, `cached`, and the members' outcomes as flat parameters: `members_answered`, `_late` and `_failed`."""
    parameters: dict[str, Any] = {"arm": timings.arm} if timings.arm else {}
    if timings.cached:
        parameters["cached"] = True
    for outcome in OUTCOMES if answer.members else ():
        if models := [member.model for member in answer.members if member.outcome == outcome]:
            parameters[f"members_{outcome}"] = ",".join(models)
    return parameters


def _output(endpoint: Endpoint, logits: NDArray[np.float32], classes: int) -> Tensor:
    tensor = Tensor(OUTPUT, "FP32", logits.shape, logits)
    return classify_output(tensor, classes, endpoint.labels) if classes else tensor
