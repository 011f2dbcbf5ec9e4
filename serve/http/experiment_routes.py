"""Experiments over HTTP: states, reports, changes and feedback."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from convoy.errors import InvalidInput, NotFound, UnsupportedMediaType
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

OFF = "experiments need a ledger; declare `experiments:` or `ledger: {url: …}` in the configuration"


class ExperimentRoutes:
    """Handlers. Changes and reports are forwarded to the experiment controller."""

    def __init__(self, plane: DataPlane, experiments: Experiments | None) -> None:
        self._plane = plane
        self._experiments = experiments
        self._rights = Rights(plane.access)

    def _require(self) -> Experiments:
        """Raises NotFound if this server has no ledger."""
        if self._experiments is None:
            raise NotFound(OFF)
        return self._experiments

    async def collection(self, request: Request) -> Response:
        """GET: all experiments that the key may call. POST: starts one."""
        if request.method == "POST":
            return await self._start(request)
        states = {} if self._experiments is None else self._experiments.states()
        return answer(
            {
                "experiments": [
                    state(revision) for name, revision in states.items() if self._rights.may_call(request, name)
                ]
            }
        )

    async def state(self, request: Request) -> Response:
        """The state of an experiment."""
        name = request.path_params["name"]
        self._rights.check_call(request, name)
        revision = self._require().states().get(name)
        if revision is None:
            raise NotFound(f"unknown experiment {name[:60]!r}")
        return answer(state(revision))

    async def report(self, request: Request) -> Response:
        """The report of an experiment, with the names of its classes."""
        name = request.path_params["name"]
        labels = self._require().labels(name)
        self._rights.check_call(request, name)
        return answer(name_classes(await ask(REFEREE_APP, "report", name), labels))

    async def _start(self, request: Request) -> Response:
        document = await self._change(request)
        try:
            definition = Experiment.model_validate(document)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, item['loc'])) or 'document'}: {item['msg']}" for item in error.errors()]
            raise InvalidInput("; ".join(problems)[:2000]) from error
        self._require().check(definition)
        return answer(await ask(REFEREE_APP, "start", definition.model_dump_json()), 201)

    async def ramp(self, request: Request) -> Response:
        """Moves an experiment to the next step of its ramp, or to `percent`."""
        document = await self._change(request)
        percent = document.get("percent")
        if percent is not None and type(percent) not in (int, float):
            raise InvalidInput("percent must be a number, one of the steps of the ramp")
        await ask(REFEREE_APP, "ramp", request.path_params["name"], percent)
        return answer({"done": True})

    async def stop(self, request: Request) -> Response:
        """Stops an arm, or the whole experiment without `arm`."""
        document = await self._change(request)
        await ask(REFEREE_APP, "stop", request.path_params["name"], _text(document, "arm", required=False))
        return answer({"done": True})

    async def promote(self, request: Request) -> Response:
        """Gives an arm all the traffic."""
        document = await self._change(request)
        await ask(REFEREE_APP, "promote", request.path_params["name"], _text(document, "arm", required=True))
        return answer({"done": True})

    async def feedback(self, request: Request) -> Response:
        """Queues feedback. It is in the ledger only after the next flush, so the status is 202."""
        experiments, document = self._require(), await self._body(request, MOST_VALUES)
        return answer({"accepted": experiments.feedback(document, partial(self._rights.check_feedback, request))}, 202)

    async def _change(self, request: Request) -> dict[str, Any]:
        """The JSON object of a change, which needs an admin key."""
        self._rights.check_change(request)
        self._require()
        document = await self._body(request)
        if not isinstance(document, dict):
            raise InvalidInput("the body must be a JSON object")
        return document

    async def _body(self, request: Request, most_values: int = ENVELOPE_VALUES) -> Any:
        """A JSON body. Requires its Content-Type, which browsers send to other sites only after a CORS preflight."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaType("the request needs Content-Type: application/json")
        return await read_json(request, self._plane.limits.body_bytes, most_values)


def name_classes(report: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Adds the class names to a report, or the index if it is unknown: the experiment controller has no catalog."""
    for row in report["classes"]:
        index = row["class_index"]
        row["label"] = labels[index] if index < len(labels) else str(index)
    return report


def state(revision: Revision) -> dict[str, Any]:
    """The JSON document of an experiment, without its webhook: that URL may contain a secret."""
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
    """The routes of experiments. Without a ledger they respond with an error that names it."""
    handlers = ExperimentRoutes(plane, experiments)
    experiment = "/v1/experiments/{name}"
    return [
        Route("/v1/feedback", handlers.feedback, methods=["POST"]),
        Route("/v1/experiments", handlers.collection, methods=["GET", "POST"]),
        Route(experiment, handlers.state),
        Route(f"{experiment}/report", handlers.report),
        Route(f"{experiment}/ramp", handlers.ramp, methods=["POST"]),
        Route(f"{experiment}/stop", handlers.stop, methods=["POST"]),
        Route(f"{experiment}/promote", handlers.promote, methods=["POST"]),
    ]


def _text(document: dict[str, Any], key: str, *, required: bool) -> str:
    value = document.get(key, "")
    if not isinstance(value, str) or (required and not value):
        raise InvalidInput(f"{key} must be the name of an arm")
    return value
