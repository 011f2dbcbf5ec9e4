"""Feedback over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from convoy.errors import ConvoyError, NotFound
from convoy.protos import experiments_pb2 as pb
from convoy.protos import experiments_pb2_grpc
from serve.experiments.pages import OFF

if TYPE_CHECKING:
    from serve.experiments.gateway import Experiments

Context = grpc.aio.ServicerContext[Any, Any]


class FeedbackServicer(experiments_pb2_grpc.ExperimentsServicer):
    """convoy.v1.Experiments."""

    def __init__(self, experiments: Experiments | None) -> None:
        self._experiments = experiments

    async def SendFeedback(self, request: pb.FeedbackRequest, context: Context) -> pb.FeedbackResponse:  # noqa: N802
        try:
            if self._experiments is None:
                raise NotFound(OFF)
            return pb.FeedbackResponse(accepted=self._experiments.feedback([_item(one) for one in request.feedback]))
        except ConvoyError as error:
            await context.abort(grpc.StatusCode[error.grpc_code], str(error))
        raise AssertionError("unreachable: abort raises")


def _item(item: pb.FeedbackRequest.Item) -> dict[str, Any]:
    """The item as JSON says it."""
    document: dict[str, Any] = {"id": item.id, "position": item.position, "experiment": item.experiment}
    if item.HasField("label"):
        document["label"] = item.label
    elif item.HasField("class_index"):
        document["label"] = item.class_index
    if item.HasField("reward"):
        document["reward"] = item.reward
    return document
