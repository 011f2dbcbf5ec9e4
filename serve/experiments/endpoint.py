"""An experiment as an endpoint that clients call like a model."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from serve.batching.results import Answer
from serve.config.experiments import VERSION
from serve.experiments.runtime import ExperimentRuntime
from serve.gateway.endpoints import Endpoint, Work
from serve.gateway.request_context import RequestContext
from serve.telemetry.recorder import ModelRecorder
from serve.telemetry.request_timings import RequestTimings

EXPERIMENT = "experiment"


@dataclass(frozen=True)
class ExperimentEndpoint(Endpoint):
    """Has the interface of its control. Its requests wait in the queues of the arms that they are assigned to."""

    live: ExperimentRuntime

    has_own_queue: ClassVar[bool] = False  # `batcher` belongs to the control
    needs_request_id: ClassVar[bool] = True

    @property
    def targets(self) -> tuple[Endpoint, ...]:
        return tuple(self.live.arms.values())

    def target_of(self, timings: RequestTimings) -> Endpoint:
        return self.live.arms[timings.arm]

    def answer(self, context: RequestContext, work: Work) -> Awaitable[list[Answer]]:
        return self.live.serve(context, work)

    def describe(self) -> dict[str, Any]:
        """As for the control, with the model of each arm."""
        definition = self.live.revision.definition
        control = self.live.arms[definition.control.name].describe()
        own = {"name": self.name, "version": self.version, "architecture": EXPERIMENT, "placement": EXPERIMENT}
        return control | own | {"arms": {arm.name: arm.model for arm in definition.arms}}

    async def finish(self) -> None:
        """Flushes the metrics; the endpoints of the arms finish the requests."""
        self.recorder.flush()


def experiment_endpoint(live: ExperimentRuntime, recorder: ModelRecorder) -> ExperimentEndpoint:
    """The endpoint of an experiment: the interface of its control, with the smallest limit of its arms."""
    definition = live.revision.definition
    control = live.arms[definition.control.name]
    return ExperimentEndpoint(
        name=definition.name,
        version=VERSION,
        form=control.form,
        labels=control.labels,
        input=control.input,
        most_images=min(arm.most_images for arm in live.arms.values()),
        decoder=control.decoder,
        batcher=control.batcher,
        recorder=recorder,
        live=live,
    )


def with_own_queue(endpoints: Iterable[Endpoint]) -> Iterator[Endpoint]:
    """The endpoints with their own queue: all but experiments."""
    return (endpoint for endpoint in endpoints if endpoint.has_own_queue)
