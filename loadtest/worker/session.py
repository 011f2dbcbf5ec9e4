"""From a due request to its record: sends it, checks the answer, and sends feedback if the plan asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import numpy as np
import orjson

from loadtest.arrivals import Due
from loadtest.plan import Plan, Target
from loadtest.wire import outcomes
from loadtest.wire.answers import Answer, reader_for
from loadtest.wire.calls import Call, Transport
from loadtest.wire.http import HttpTransport
from loadtest.wire.requests import Request, http_bytes
from loadtest.worker.records import NOTHING, Judged, Recorder

TEXT_LENGTH = 200  # characters kept of a failure's message
FEEDBACK = 1 << 63  # set in the numbers of feedback requests, so that they differ from those of the schedule


def open_transport(target: Target, done: Callable[[Call, int, bytes, int | None], None]) -> Transport:
    """The transport of a target's protocol; grpcio is imported only where it is used."""
    if target.is_grpc:
        from loadtest.wire.grpc import GrpcTransport

        return GrpcTransport(target, done)
    return HttpTransport(target, done)


class Session:
    """Everything between the driver and the recorder.

    `pending` counts feedback still to be sent; `failure_texts` holds the first message of each outcome that is a failure.
    """

    def __init__(self, plan: Plan, requests: list[tuple[Request, ...]], start: float) -> None:
        self._plan = plan
        self._requests = requests
        self.recorder = Recorder(start)
        self._measured_from = start + plan.warmup_s
        self.transport = open_transport(plan.target, self._done)
        self.stages_ms: dict[str, tuple[float, int]] = {}
        self.on_done: Callable[[], None] = lambda: None
        self.pending = 0
        self.failure_texts: dict[int, str] = {}
        self._read = reader_for(plan.target.protocol)
        self._counts_rows = plan.target.protocol != "raw"  # a raw answer may have any form
        self._uploads = [traffic.upload_bytes_per_s for traffic in plan.traffic]
        self._chance = np.random.default_rng([plan.seed, 6])

    def issue(self, due: Due, scheduled: float) -> None:
        """Sends a request that was due at `scheduled`."""
        request = self._requests[due.traffic][due.item]
        self.transport.start(Call(due.index, due.traffic, request, scheduled, self._uploads[due.traffic]))

    def _done(self, call: Call, outcome: int, body: bytes, json_length: int | None) -> None:
        done = monotonic()
        judged = NOTHING
        if call.is_feedback:
            self.recorder.add(call, outcome, done, judged)
            return
        if outcomes.is_ok(outcome):
            try:
                judged = self._judge(call, self._read(body, json_length))
            except ValueError as error:
                outcome = outcomes.MALFORMED
                self._keep_text(outcome, str(error))
        elif body and outcome not in self.failure_texts:
            self._keep_text(outcome, body[:TEXT_LENGTH].decode("utf-8", "replace"))
        self.recorder.add(call, outcome, done, judged)
        self.on_done()

    def _keep_text(self, outcome: int, text: str) -> None:
        self.failure_texts.setdefault(
            outcome, "".join(char if char.isprintable() else " " for char in text[:TEXT_LENGTH])
        )

    def _judge(self, call: Call, answer: Answer) -> Judged:
        if call.scheduled >= self._measured_from:
            for stage, value in answer.stages_ms.items():
                total, count = self.stages_ms.get(stage, (0.0, 0))
                self.stages_ms[stage] = (total + value, count + 1)
        request = call.request
        if self._counts_rows and len(answer.classes) != len(request.expected):
            raise ValueError(f"{len(answer.classes)} classifications for {len(request.expected)} images")
        if not request.is_checked:
            return Judged(arm=answer.arm) if answer.arm else NOTHING
        if self._plan.feedback is not None and answer.id and self._chance.random() < self._plan.feedback.share:
            self._plan_feedback(call, answer)
        labelled = sum(label is not None for label in request.expected)
        return Judged(labelled, answer.correct(request.expected), answer.arm)

    def _plan_feedback(self, call: Call, answer: Answer) -> None:
        assert self._plan.feedback is not None
        label = call.request.expected[0]
        body = orjson.dumps({"id": answer.id, "label": label})
        data = http_bytes(self._plan.target, self._plan.feedback.path, {"Content-Type": "application/json"}, body)
        self.pending += 1
        asyncio.get_running_loop().call_later(self._plan.feedback.delay_s, self._send_feedback, call, Request(data, ""))

    def _send_feedback(self, call: Call, request: Request) -> None:
        self.pending -= 1
        feedback = Call(FEEDBACK | call.index, call.traffic, request, monotonic())
        feedback.is_feedback = True
        self.transport.start(feedback)
