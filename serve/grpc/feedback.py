"""Feedback about experiments over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convoy.errors import NotFound
from convoy.protos import experiments_pb2 as pb
from convoy.protos import experiments_pb2_grpc
from serve.experiments.feedback import check_number
from serve.grpc.calls import Calls, Context, aborts
from serve.http.experiment_routes import OFF

if TYPE_CHECKING:
    from serve.experiments.manager import Experiments


class FeedbackServicer(experiments_pb2_grpc.ExperimentsServicer):
    """convoy.v1.Experiments."""

    def __init__(self, calls: Calls, experiments: Experiments | None) -> None:
        self._calls = calls
        self._experiments = experiments

    @aborts
    async def SendFeedback(self, request: pb.FeedbackRequest, context: Context) -> pb.FeedbackResponse:  # noqa: N802
        """Stores true labels or rewards in the ledger."""
        with self._calls.question(context) as holder:
            if self._experiments is None:
                raise NotFound(OFF)
            check_number(len(request.feedback))
            items = [_document(item) for item in request.feedback]
            check = _allow_all if holder is None else holder.check_feedback
            return pb.FeedbackResponse(accepted=self._experiments.feedback(items, check))


def _allow_all(experiment: str) -> None:
    """Without declared keys every client may send feedback for every experiment."""


def _document(item: pb.FeedbackRequest.Item) -> dict[str, Any]:
    """The item as its JSON document of the HTTP API."""
    document: dict[str, Any] = {"id": item.id, "position": item.position, "experiment": item.experiment}
    if item.HasField("label"):
        document["label"] = item.label
    elif item.HasField("class_index"):
        document["label"] = item.class_index
    if item.HasField("reward"):
        document["reward"] = item.reward
    return document
