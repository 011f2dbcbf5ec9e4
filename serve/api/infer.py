"""The Open Inference Protocol's infer, for both wires: checks tensors against the model, runs, names the outputs."""

from __future__ import annotations

import itertools
import math
import operator
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
from serve.experiments.caller import MakeCaller
from serve.experiments.endpoint import ExperimentEndpoint
from serve.gateway.dataplane import DataPlane, Terms, Watch, all_logits, check_images
from serve.gateway.endpoints import ComposedEndpoint, Endpoint
from serve.telemetry.request_timings import RequestTimings

OUTPUT = "logits"
MAX_PRIORITY = 2**31


async def infer(
    plane: DataPlane,
    endpoint: Endpoint,
    request: InferRequest,
    caller: MakeCaller,
    terms: Terms,
    trace: RequestTimings,
    watch: Watch,
) -> InferResponse:
    """Answers a request. Raises InvalidInput when it does not fit the model."""
    for output in request.outputs:
        if output.name != OUTPUT:
            raise InvalidInput(f"unknown output {output.name[:60]!r}; {endpoint.name} has {OUTPUT!r}")
    tells_energy = bool(request.parameters) and check_flag("energy", request.parameters.get("energy", False))
    identifier = request.id
    if isinstance(endpoint, ExperimentEndpoint):
        identifier = trace.id = trace.id or plane.new_id()  # feedback must be able to name it
        caller_now, work = caller(identifier, request.parameters), partial(_answers, plane, request)
        answers = await endpoint.live.serve(caller_now, terms, trace, watch, work)
    else:
        answers = await _answers(plane, request, endpoint, terms, trace, watch)
    logits = all_logits(answers)
    asked = request.outputs or (RequestedOutput(OUTPUT),)
    outputs = tuple(_output(endpoint, logits, one.classes) for one in asked)
    parameters = _parameters(answers[0], trace)
    if tells_energy:
        told = answer_energy(endpoint, answers, trace)
        parameters = {**parameters, **{key: value for key, value in told.items() if value is not None}}
    return InferResponse(endpoint.name, endpoint.version, identifier, outputs, parameters)


async def _answers(
    plane: DataPlane, request: InferRequest, endpoint: Endpoint, terms: Terms, trace: RequestTimings, watch: Watch
) -> list[Answer]:
    tensor = _single_input(endpoint, request)
    check_input(endpoint, tensor.name, tensor.datatype, tensor.shape)
    if tensor.datatype == BYTES:
        return await plane.classify(endpoint, tensor.elements, terms, trace, watch)
    if isinstance(endpoint, ComposedEndpoint):
        return await plane.decode_and_run(endpoint, list(tensor.array), terms, trace, watch)
    return await plane.run(endpoint, tensor.array, terms, trace, watch)


def request_terms(plane: DataPlane, request: InferRequest, trace: RequestTimings, default: Terms) -> Terms:
    """The terms in a request's parameters: `timeout` in microseconds, `priority` from 1, 0 being the default."""
    if "timeout" not in request.parameters and "priority" not in request.parameters:
        return default
    timeout, priority = request.parameters.get("timeout"), request.parameters.get("priority", 0)
    if type(priority) is not int or not 0 <= priority <= MAX_PRIORITY:
        raise InvalidInput("parameter priority must be a whole number of at least 0")
    if timeout is None:
        return Terms(default.deadline, priority or default.priority)
    if type(timeout) is not int or timeout < 0:
        raise InvalidInput("parameter timeout must be a whole number of microseconds")
    deadline = plane.terms(trace.started, timeout / 1e6 if timeout else None).deadline
    return Terms(min(deadline, default.deadline), priority or default.priority)


def _single_input(endpoint: Endpoint, request: InferRequest) -> Tensor:
    expected, inputs = endpoint.input.name, request.inputs
    if len(inputs) != 1 or inputs[0].name != expected:
        names = ", ".join(repr(tensor.name) for tensor in inputs)
        raise InvalidInput(f"{endpoint.name} has one input, {expected!r}; the request has {names[:200]}")
    return inputs[0]


def check_input(endpoint: Endpoint, name: str, datatype: str, shape: tuple[int, ...]) -> None:
    """Whether a model takes a tensor, whatever its elements are. Raises InvalidInput or TooLarge.

    An experiment takes what one of its arms takes; the arm that is asked decides.
    """
    if isinstance(endpoint, ExperimentEndpoint):
        _check_arms(endpoint, name, datatype, shape)
    elif name != endpoint.input.name:
        raise InvalidInput(f"{endpoint.name} has one input, {endpoint.input.name!r}; the request has {name!r}")
    elif datatype == BYTES:
        if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
            raise InvalidInput(f"images must have shape [n] or [n, 1], not {list(shape)}")
        check_images(endpoint, math.prod(shape))
    else:
        _check_rows(endpoint, datatype, shape)


def _check_arms(endpoint: ExperimentEndpoint, name: str, datatype: str, shape: tuple[int, ...]) -> None:
    errors: list[ConvoyError] = []
    for arm in endpoint.live.arms.values():
        try:
            return check_input(arm, name, datatype, shape)
        except ConvoyError as error:
            errors.append(error)
    raise errors[0]


def _check_rows(endpoint: Endpoint, datatype: str, shape: tuple[int, ...]) -> None:
    spec = endpoint.input
    wanted = NAMES[spec.dtype]
    if datatype != wanted:
        also = f" or {BYTES} (encoded images)" if endpoint.form == "image" else ""
        raise InvalidInput(f"input {spec.name!r} is {datatype}; {endpoint.name} takes {wanted}{also}")
    if not _has_shape(shape, spec.shape):
        raise InvalidInput(f"input {spec.name!r} has shape {list(shape)}; {endpoint.name} takes {list(spec.shape)}")
    check_images(endpoint, shape[0], "rows")


def most_values(endpoint: Endpoint, unknown: int) -> int:
    """The most values that JSON needs for a request's tensor, its nested lists too; `unknown` where a size may vary."""
    if isinstance(endpoint, ExperimentEndpoint):
        return max(most_values(arm, unknown) for arm in endpoint.live.arms.values())
    if -1 in endpoint.input.shape[1:]:
        return unknown
    return sum(itertools.accumulate((endpoint.most_images, *endpoint.input.shape[1:]), operator.mul))


def _has_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is the wanted one, in which -1 stands for any size from 1."""
    if len(shape) != len(wanted):
        return False
    for size, want in zip(shape, wanted, strict=True):  # noqa: SIM110 a generator takes three times as long
        if size != want and (want != -1 or size < 1):
            return False
    return True


def _parameters(answer: Answer, trace: RequestTimings) -> Parameters:
    """`arm`, `cached`, and who took part as the protocol's flat parameters: `members_answered`, `_late` and `_failed`."""
    parameters: dict[str, Any] = {"arm": trace.arm} if trace.arm else {}
    if trace.cached:
        parameters["cached"] = True
    for outcome in OUTCOMES if answer.members else ():
        if models := [member.model for member in answer.members if member.outcome == outcome]:
            parameters[f"members_{outcome}"] = ",".join(models)
    return parameters


def _output(endpoint: Endpoint, logits: NDArray[np.float32], classes: int) -> Tensor:
    tensor = Tensor(OUTPUT, "FP32", logits.shape, logits)
    return classify_output(tensor, classes, endpoint.labels) if classes else tensor
