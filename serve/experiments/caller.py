"""Requests to experiments, on both wires: who calls, and the work that an arm is asked to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import grpc

from convoy.errors import InvalidInput
from serve.batcher import Answer
from serve.catalog import Endpoint
from serve.dataplane import Terms, Watch
from serve.grpc_frames import PEER
from serve.http_body import Headers, Scope
from serve.timeline import Trace

ARM_HEADER = b"x-convoy-arm"
MAX_ID = 128


class Caller(NamedTuple):
    """Who sends a request, as far as an experiment needs it: `header` also finds gRPC metadata, in lower case."""

    id: str
    address: str
    header: Callable[[str], str | None]
    fields: Mapping[str, Any]  # of a JSON body or a form, or parameters


class Work(Protocol):
    """What a request asks, of whichever arm."""

    def __call__(self, endpoint: Endpoint, *, terms: Terms, trace: Trace, watch: Watch) -> Awaitable[list[Answer]]: ...


MakeCaller = Callable[[str, Mapping[str, Any]], Caller]  # of the request's id and fields; raises InvalidInput


def http_caller(scope: Scope, headers: Headers, identifier: str, fields: Mapping[str, Any]) -> Caller:
    def header(name: str) -> str | None:
        value = headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    client = scope.get("client")
    return Caller(checked_id(identifier), client[0] if client else "", header, fields)


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


def checked_id(identifier: str) -> str:
    """A request id that the ledger can keep. Raises InvalidInput."""
    if len(identifier) > MAX_ID or "\0" in identifier:
        raise InvalidInput(f"the id of a request to an experiment may have at most {MAX_ID} characters, and no NUL")
    return identifier


def address_of(peer: str) -> str:
    """The host in a peer such as `ipv4:127.0.0.1:53412` or `ipv6:%5B::1%5D:53412`, as HTTP names it."""
    return unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]") or peer
