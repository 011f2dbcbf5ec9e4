"""The asyncio client under the name that programs know; it is made in `convoy.client.aio`."""

from __future__ import annotations

from convoy.client.aio import AsyncClient

__all__ = ["AsyncClient"]
