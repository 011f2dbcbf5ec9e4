"""Experiments over HTTP: states, reports, feedback, and what the command line asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from convoy.errors import InvalidInput, NotFound, UnsupportedEncoding
from serve.cluster.rpc import REFEREE_APP, ask
from serve.config.experiments import Experiment
from serve.experiments.feedback import MOST_VALUES
from serve.experiments.revision import Revision
from serve.gateway.dataplane import DataPlane
from serve.http.auth import Rights
from serve.http.json_documents import ENVELOPE_VALUES
from serve.http.responses import answer, read_json

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments

OFF = "experiments need a ledger: declare `experiments:` or `ledger: {url: …}` in the configuration"


class ExperimentRoutes:
    """Handlers. Changes go through the referee; this gateway only passes them on."""

    def __init__(self, plane: DataPlane, experiments: Experiments | None) -> None:
        self._plane = plane
        self._present = experiments
        self._rights = Rights(plane.access)

    def _need(self) -> Experiments:
        if self._present is None:
            raise NotFound(OFF)
        return self._present

    async def collection(self, request: Request) -> Response:
        """All experiments, or a new one."""
        if request.method == "POST":
            return await self._start(request)
        states = {} if self._present is None else self._present.states()
        return answer(
            {"experiments": [state(one) for name, one in states.items() if self._rights.may_call(request, name)]}
        )

    async def state(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._rights.check_call(request, name)
        revision = self._need().states().get(name)
        if revision is None:
            raise NotFound(f"unknown experiment {name[:60]!r}")
        return answer(state(revision))

    async def report(self, request: Request) -> Response:
        name = request.path_params["name"]
        labels = self._need().labels(name)
        self._rights.check_call(request, name)
        return answer(name_classes(await ask(REFEREE_APP, "report", name), labels))

    async def _start(self, request: Request) -> Response:
        document = await self._change(request)
        try:
            definition = Experiment.model_validate(document)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, one['loc'])) or 'document'}: {one['msg']}" for one in error.errors()]
            raise InvalidInput("; ".join(problems)[:2000]) from error
        self._need().check(definition)
        return answer(await ask(REFEREE_APP, "start", definition.model_dump_json()), 201)

    async def ramp(self, request: Request) -> Response:
        document = await self._change(request)
        percent = document.get("percent")
        if percent is not None and type(percent) not in (int, float):
            raise InvalidInput("percent must be a number, one of the ramp's")
        await ask(REFEREE_APP, "ramp", request.path_params["name"], percent)
        return answer({"done": True})

    async def stop(self, request: Request) -> Response:
        document = await self._change(request)
        await ask(REFEREE_APP, "stop", request.path_params["name"], _text(document, "arm", required=False))
        return answer({"done": True})

    async def promote(self, request: Request) -> Response:
        document = await self._change(request)
        await ask(REFEREE_APP, "promote", request.path_params["name"], _text(document, "arm", required=True))
        return answer({"done": True})

    async def feedback(self, request: Request) -> Response:
        """Taken, not yet written: the ledger has it after the next flush."""
        present, document = self._need(), await self._body(request, MOST_VALUES)
        return answer({"accepted": present.feedback(document, partial(self._rights.check_feedback, request))}, 202)

    async def _change(self, request: Request) -> dict[str, Any]:
        """The JSON object of an admin's request."""
        self._rights.check_change(request)
        self._need()
        document = await self._body(request)
        if not isinstance(document, dict):
            raise InvalidInput("the body must be a JSON object")
        return document

    async def _body(self, request: Request, most_values: int = ENVELOPE_VALUES) -> Any:
        """A JSON body. Its type must be said, so that no web page elsewhere can send it unasked."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedEncoding("send this with Content-Type: application/json")
        return await read_json(request, self._plane.limits.body_bytes, most_values)


def name_classes(report: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The referee knows no models: a report gets the names of its classes here, an index where there is none."""
    for one in report["classes"]:
        index = one["class_index"]
        one["label"] = labels[index] if index < len(labels) else str(index)
    return report


def state(revision: Revision) -> dict[str, Any]:
    definition = revision.definition
    return {
        "name": definition.name,
        "state": revision.state,
        "mode": definition.mode,
        "revision": revision.revision,
        "stage": revision.stage,
        "stopped": sorted(revision.stopped),
        "held": sorted(revision.held),
        "shares": {arm.name: revision.allocation.shares.get(arm.name, 0.0) for arm in definition.arms},
        "definition": definition.model_dump(mode="json", exclude={"webhook"}),
    }


def experiment_routes(plane: DataPlane, experiments: Experiments | None) -> list[Route]:
    pages = ExperimentRoutes(plane, experiments)
    one = "/v1/experiments/{name}"
    return [
        Route("/v1/feedback", pages.feedback, methods=["POST"]),
        Route("/v1/experiments", pages.collection, methods=["GET", "POST"]),
        Route(one, pages.state),
        Route(f"{one}/report", pages.report),
        Route(f"{one}/ramp", pages.ramp, methods=["POST"]),
        Route(f"{one}/stop", pages.stop, methods=["POST"]),
        Route(f"{one}/promote", pages.promote, methods=["POST"]),
    ]


def _text(document: dict[str, Any], key: str, *, required: bool) -> str:
    value = document.get(key, "")
    if not isinstance(value, str) or (required and not value):
        raise InvalidInput(f"{key} must be the name of an arm")
    return value
