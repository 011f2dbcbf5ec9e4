"""Clients, wire formats and the command line of Convoy. Imports neither Ray nor torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convoy.client import Client as Client
    from convoy.client.aio import AsyncClient as AsyncClient

__version__ = "0.1.0"

LAZY = {"Client": "convoy.client", "AsyncClient": "convoy.client.aio"}  # keeps `import convoy` fast


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'convoy' has no attribute {name!r}")
