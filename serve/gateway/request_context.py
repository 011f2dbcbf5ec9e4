"""The context of a request, passed to every layer below a listener."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from convoy.errors import Cancelled
from serve.telemetry.request_timings import RequestTimings


class Caller(Protocol):
    """The client of a request; `header` also finds gRPC metadata, by names in lower case."""

    @property
    def address(self) -> str:
        """The client's IP address, empty if it is not known."""
        ...

    def header(self, name: str) -> str | None:
        """The value of a header, None if it is absent."""
        ...


class NoCaller:
    """A placeholder until the listener sets the caller."""

    address = ""

    def header(self, name: str) -> str | None:
        return None


NO_CALLER = NoCaller()


NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


class RequestContext:
    """One request. Lives on the event loop of its listener.

    Attributes:
        timings: the times at which the request passed each stage.
        caller: its client.
        deadline: monotonic seconds after which the answer is useless; finite, since the queues sort work into steps of time.
        priority: rows of a lower number run first; 0 is the default.
        fields: fields of a JSON body or a form without the images, or the parameters of the Open Inference Protocol.
        pending: the futures that the request waits for now; `cancel` fails them.
    """

    __slots__ = ("caller", "deadline", "fields", "pending", "priority", "timings")

    def __init__(self, timings: RequestTimings, deadline: float, caller: Caller = NO_CALLER, priority: int = 0) -> None:
        self.timings = timings
        self.caller = caller
        self.deadline = deadline
        self.priority = priority
        self.fields = NO_FIELDS
        self.pending: Sequence[asyncio.Future[Any]] = ()

    @property
    def request_id(self) -> str:
        """The client's id of the request, or the server's; empty until either is known. Used in logs and traces."""
        return self.timings.id

    @request_id.setter
    def request_id(self, value: str) -> None:
        self.timings.id = value

    def cancel(self) -> None:
        """Ends the wait of a request whose client has disconnected: it raises Cancelled."""
        for future in self.pending:
            if not future.done():
                future.set_exception(Cancelled("the client disconnected before the answer"))

    def copy(self, priority: int) -> RequestContext:
        """A context for running the same request again: new timings that start now, the same caller and deadline.

        It is not cancelled with the original: its answer is only recorded, so a client that disconnects does not end it.
        """
        timings = RequestTimings(time.monotonic(), id=self.timings.id)
        context = RequestContext(timings, self.deadline, self.caller, priority)
        context.fields = self.fields
        return context
