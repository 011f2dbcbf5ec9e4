"""Gateways in the test process, without listeners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from serve.config.schema import Settings
from serve.gateway.catalog_loader import close_endpoints
from serve.gateway.repository import Decides
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.serve.listeners import InProcess


@asynccontextmanager
async def started(*gateways: InProcess) -> AsyncIterator[None]:
    """Starts gateways and declares their catalogs. Closes them when the block ends."""
    try:
        for gateway in gateways:
            gateway.repository.start()
            await gateway.repository.declare(gateway.settings.catalog)
        yield
    finally:
        for gateway in gateways:
            gateway.repository.close()
            await close_endpoints(gateway.plane.endpoints.by_name.values())
            gateway.decoders.close()


@asynccontextmanager
async def following(settings: Settings, coordinator: Decides, *names: str) -> AsyncIterator[list[InProcess]]:
    """Starts gateways that follow a coordinator."""
    gateways = [InProcess(settings, coordinator, name) for name in names]
    async with started(*gateways):
        yield gateways


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine, which must end within two minutes."""
    asyncio.run(asyncio.wait_for(scenario, 120))


def unavailable(gateway: InProcess) -> dict[str, float]:
    """The metric `convoy_model_unavailable` by model: 1 for an unavailable one."""
    values = total(read_files(gateway.metrics.folder))["convoy_model_unavailable"]
    return {dict(labels)["model"]: float(value[0]) for labels, value in values.items()}
