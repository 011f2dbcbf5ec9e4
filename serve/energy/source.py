"""What a source of energy figures is. Every figure says where it is from and how it came about."""

from __future__ import annotations

from typing import Literal, Protocol

SourceName = Literal["nvml", "rapl", "declared"]
# measured: read from hardware; modelled: from declared watts and utilisation; estimated: a share of either of them.
Method = Literal["measured", "modelled", "estimated"]

CPU = "cpu"  # device on which engines run that use the host's cores


class SourceGone(Exception):
    """A source that was there can no longer be read."""


class Source(Protocol):
    """The energy counter of one chip. `device` names the engines that may have used it."""

    @property
    def chip(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def source(self) -> SourceName: ...
    @property
    def method(self) -> Method: ...

    @property
    def idle_watts(self) -> float | None:
        """Power at rest where it is known beforehand; None: it must be learnt."""
        ...

    @property
    def cap_watts(self) -> float | None:
        """The most that the chip may draw; None: unknown."""
        ...

    def joules(self) -> float:
        """Energy used since the source was opened; never falls. Raises SourceGone."""
        ...
