"""The client of an HTTP request, as experiments see it: its address, headers and fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serve.experiments.caller import Caller, checked_id
from serve.http.body import Headers, Scope


def http_caller(scope: Scope, headers: Headers, identifier: str, fields: Mapping[str, Any]) -> Caller:
    def header(name: str) -> str | None:
        value = headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    client = scope.get("client")
    return Caller(checked_id(identifier), client[0] if client else "", header, fields)
