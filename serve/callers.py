"""Requests to experiments, on both wires: who calls, which arm answers, and how the answer says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from convoy.errors import InvalidInput
from serve.dataplane import Caller, Trace
from serve.http_body import Headers, Scope

ARM = "x-convoy-arm"
REQUEST_ID = "x-convoy-request-id"
MAX_ID = 128


def checked_id(identifier: str) -> str:
    """A request id that the ledger can keep. Raises InvalidInput."""
    if len(identifier) > MAX_ID or "\0" in identifier:
        raise InvalidInput(f"the id of a request to an experiment may have at most {MAX_ID} characters, and no NUL")
    return identifier


def http_caller(identifier: str, scope: Scope, headers: Headers, fields: Mapping[str, Any]) -> Caller:
    def header(name: str) -> str | None:
        value = headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    client = scope.get("client")
    return Caller(checked_id(identifier), client[0] if client else "", header, fields)


def grpc_caller(identifier: str, context: grpc.aio.ServicerContext[Any, Any], fields: Mapping[str, Any]) -> Caller:
    def header(name: str) -> str | None:
        pairs = context.invocation_metadata() or ()
        value = next((value for key, value in pairs if key == name), None)
        return value.decode("latin-1") if isinstance(value, bytes) else value

    return Caller(checked_id(identifier), _address(context.peer()), header, fields)


def _address(peer: str) -> str:
    """The host in a peer such as `ipv4:127.0.0.1:53412` or `ipv6:[::1]:53412`."""
    return peer.partition(":")[2].rpartition(":")[0] or peer


def arm_metadata(identifier: str, trace: Trace) -> list[tuple[str, str]]:
    """What an answer says beside its body: the arm that gave it, and the id under which feedback finds it."""
    return [(ARM, trace.arm), (REQUEST_ID, identifier)] if trace.arm else []


def arm_headers(identifier: str, trace: Trace) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in arm_metadata(identifier, trace)]
