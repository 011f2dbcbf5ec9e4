"""The interface of an energy source. Every figure carries its source and method."""

from __future__ import annotations

from typing import Literal, Protocol

SourceName = Literal["nvml", "rapl", "declared"]
# measured: read from hardware; modelled: from declared watts and utilization; estimated: a share of one of these.
Method = Literal["measured", "modelled", "estimated"]

CPU = "cpu"  # the device of engines that run on the machine's cores


class SourceGone(Exception):
    """A source that was found can no longer be read."""


class Source(Protocol):
    """The energy counter of one chip; `device` is the device of the engines that may use it."""

    @property
    def chip(self) -> str:
        """The chip's name in metrics."""
        ...

    @property
    def device(self) -> str:
        """The device of the engines that may use the chip: `cpu`, or `cuda:0` and so on."""
        ...

    @property
    def source(self) -> SourceName:
        """Where the figures come from."""
        ...

    @property
    def method(self) -> Method:
        """How the figures are made."""
        ...

    @property
    def idle_watts(self) -> float | None:
        """Idle power where it is declared; None: it is estimated."""
        ...

    @property
    def cap_watts(self) -> float | None:
        """Power limit of the chip; None: unknown."""
        ...

    def joules(self) -> float:
        """Energy used since the source was opened; never decreases. Raises SourceGone."""
        ...
