"""The asyncio client under its public name; the code is in `convoy.client.aio`."""

from __future__ import annotations

from convoy.client.aio import AsyncClient

__all__ = ["AsyncClient"]
