"""The limit on granian, whose HTTP is compiled Rust: the work of benchmarks/limit.py on granian's own interface.

Start: `granian --interface rsgi --workers 1 benchmarks.limit_granian:app`. RSGI: https://github.com/emmett-framework/granian,
docs/spec/RSGI.md.
"""

from __future__ import annotations

from typing import Any

from benchmarks.limit import answer

LENGTH = "inference-header-content-length"


async def app(scope: Any, protocol: Any) -> None:
    body = await protocol()
    length = scope.headers.get(LENGTH)
    content, head = await answer(body, None if length is None else int(length))
    headers = [("content-type", "application/json") if head is None else (LENGTH, str(head))]
    protocol.response_bytes(200, headers, content)
