"""What the connections of a listener share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from serve.config.schema import Limits
from serve.http.body import BodyMemory
from serve.http.exchange import ModelApp
from serve.http.http1.head import KnownHeads

if TYPE_CHECKING:
    from serve.http.http1.connection import Connection


class Listener:
    """What the connections of a listener share."""

    def __init__(self, app: ASGIApp, models: ModelApp, limits: Limits, count_refusal: Callable[[str], None]) -> None:
        """`models` answers plain requests to models, `app` all others.

        `count_refusal` is called with the status of each request that a connection refuses itself, without either of them.
        """
        self.app = app
        self.count_refusal = count_refusal
        self.models = models
        self.limits = limits
        self.heads = KnownHeads()
        self.body_memory = BodyMemory()
        self.connections: set[Connection] = set()
        self.stopped = False
        self._closed = asyncio.Event()

    def opened(self, connection: Connection) -> None:
        """Adds a connection."""
        self.connections.add(connection)
        self._closed.clear()

    def lost(self, connection: Connection) -> None:
        """Removes a connection that has closed."""
        self.connections.discard(connection)
        if not self.connections:
            self._closed.set()

    async def wait_closed(self) -> None:
        """Waits until no connection is open."""
        if self.connections:
            await self._closed.wait()
