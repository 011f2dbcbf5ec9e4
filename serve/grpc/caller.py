"""The client of a gRPC call, as experiments see it: its address, metadata and fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import grpc

from serve.experiments.caller import Caller, checked_id
from serve.grpc.frames import PEER


def grpc_caller(context: grpc.aio.ServicerContext[Any, Any], identifier: str, fields: Mapping[str, Any]) -> Caller:
    def header(name: str) -> str | None:
        pairs = context.invocation_metadata() or ()
        value = next((value for key, value in pairs if key == name), None)
        return value.decode("latin-1") if isinstance(value, bytes) else value

    return Caller(checked_id(identifier), address_of(_peer(context)), header, fields)


def _peer(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Who sends: before the native server, which is at a Unix socket, the front has written it behind all metadata."""
    peer = context.peer()
    if not peer.startswith("unix:"):
        return peer
    told = [value for key, value in context.invocation_metadata() or () if key == PEER]
    return str(told[-1]) if told else peer


def address_of(peer: str) -> str:
    """The host in a peer such as `ipv4:127.0.0.1:53412` or `ipv6:%5B::1%5D:53412`, as HTTP names it."""
    return unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]") or peer
