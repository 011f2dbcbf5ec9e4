"""Records the direct requests that start."""

from __future__ import annotations

from typing import Any

import pytest

from serve.api.direct import DirectRequest


def record_started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that have started, until the patch is undone."""
    found: list[Any] = []
    start = DirectRequest.start

    def recorded(request: DirectRequest) -> None:
        found.append(request)
        start(request)

    monkeypatch.setattr(DirectRequest, "start", recorded)
    return found
