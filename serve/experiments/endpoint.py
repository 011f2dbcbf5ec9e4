"""An experiment as clients call it: an endpoint beside those of the models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from serve.config.experiments import VERSION
from serve.experiments.runtime import ExperimentRuntime
from serve.gateway.endpoints import Endpoint
from serve.telemetry.recorder import ModelRecorder
from serve.telemetry.request_timings import RequestTimings


@dataclass(frozen=True)
class ExperimentEndpoint(Endpoint):
    """Looks like its control, whose line stands for those of all arms; requests wait in their arm's line."""

    live: ExperimentRuntime

    def arm_of(self, trace: RequestTimings) -> Endpoint:
        """The endpoint that a request was assigned to."""
        return self.live.arms[trace.arm]


def experiment_endpoint(live: ExperimentRuntime, recorder: ModelRecorder) -> ExperimentEndpoint:
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
    """The endpoints that have a line of their own: all but experiments."""
    return (one for one in endpoints if not isinstance(one, ExperimentEndpoint))
