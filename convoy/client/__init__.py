"""Clients of a server, blocking and asyncio, and the types of their responses.

Modules are loaded when a name is first used, because the command line needs only a few of them and must start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convoy.client.aio import AsyncClient as AsyncClient
    from convoy.client.requests import Image as Image
    from convoy.client.responses import Class as Class
    from convoy.client.responses import Classification as Classification
    from convoy.client.responses import Energy as Energy
    from convoy.client.responses import FileAnswer as FileAnswer
    from convoy.client.responses import Member as Member
    from convoy.client.responses import ModelSummary as ModelSummary
    from convoy.client.responses import Prediction as Prediction
    from convoy.client.retries import Retries as Retries
    from convoy.client.sync import Client as Client
    from convoy.credentials import Credentials as Credentials

LAZY = {
    "AsyncClient": "convoy.client.aio",
    "Class": "convoy.client.responses",
    "Classification": "convoy.client.responses",
    "Client": "convoy.client.sync",
    "Credentials": "convoy.credentials",
    "Energy": "convoy.client.responses",
    "FileAnswer": "convoy.client.responses",
    "Image": "convoy.client.requests",
    "Member": "convoy.client.responses",
    "ModelSummary": "convoy.client.responses",
    "Prediction": "convoy.client.responses",
    "Retries": "convoy.client.retries",
}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'convoy.client' has no attribute {name!r}")
