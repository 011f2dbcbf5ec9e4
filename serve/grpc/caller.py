"""The client of a gRPC call, as `serve.gateway.request_context.Caller`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from urllib.parse import unquote

from serve.grpc.frames import PEER


class CallContext(Protocol):
    """The part of grpcio's servicer context that calls to models need; `serve.grpc.hot_calls.HotContext` has it too."""

    def peer(self) -> str:
        """The client's address in gRPC's format."""
        ...

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None for a call without one."""
        ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Names in lower case and values, in the order received."""
        ...


class GrpcCaller:
    """Reads peer and metadata only when an experiment or a trace needs them: most calls need neither."""

    __slots__ = ("_context",)

    def __init__(self, context: CallContext) -> None:
        self._context = context

    @property
    def address(self) -> str:
        """The client's host."""
        return address_of(self._peer())

    def header(self, name: str) -> str | None:
        """The first metadata value of a name."""
        pairs = self._context.invocation_metadata() or ()
        value = next((value for key, value in pairs if key == name), None)
        return value.decode("latin-1") if isinstance(value, bytes) else value

    def _peer(self) -> str:
        """The client's peer. The native server has only a Unix socket, so the front appends the real peer to the metadata."""
        peer = self._context.peer()
        if not peer.startswith("unix:"):
            return peer
        # The last value: a client may send the same name, and the front appends its value after those of the client.
        peers = [value for key, value in self._context.invocation_metadata() or () if key == PEER]
        return str(peers[-1]) if peers else peer


def address_of(peer: str) -> str:
    """The host in a peer such as `ipv4:127.0.0.1:53412` or `ipv6:%5B::1%5D:53412`, as HTTP names it."""
    return unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]") or peer
