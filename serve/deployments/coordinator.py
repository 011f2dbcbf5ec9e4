"""The coordinator (Ray application `steward`): a single replica that decides which models are loaded.

It numbers its decisions as revisions, which every gateway follows. It keeps no state on disk: each call carries the caller's
revision, and the highest revision wins, so a restarted coordinator learns its own last decision from the gateways.
"""

from __future__ import annotations

import asyncio

from ray import serve as ray_serve

from serve.cluster.clock_watchdog import ClockWatchdog, renew_controller, watch
from serve.cluster.rpc import STEWARD_APP, ask
from serve.gateway.revisions import Change, Report, Revision, Revisions


@ray_serve.deployment(
    name="steward",
    num_replicas=1,
    max_ongoing_requests=1000,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=1,
    ray_actor_options={"num_cpus": 0},
)
class Coordinator:
    """The deployment; its methods are those of `serve.gateway.revisions.Revisions`."""

    async def __init__(self) -> None:  # type: ignore[misc] # Ray awaits it
        self._revisions = Revisions()
        self._watch = asyncio.create_task(watch(ClockWatchdog(), renew_controller))

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change:
        """As `Revisions.set_loaded`."""
        return await self._revisions.set_loaded(model, loaded, known)

    async def follow(self, follower: str, known: Revision, report: Report) -> Revision:
        """As `Revisions.follow`."""
        return await self._revisions.follow(follower, known, report)

    async def report(self, follower: str, report: Report) -> None:
        """As `Revisions.report`."""
        await self._revisions.report(follower, report)


class CoordinatorClient:
    """The coordinator's methods, called from a gateway. Each raises NotReady when the coordinator does not answer."""

    async def set_loaded(self, model: str, loaded: bool, known: Revision) -> Change:
        answer: Change = await ask(STEWARD_APP, "set_loaded", model, loaded, known)
        return answer

    async def follow(self, follower: str, known: Revision, report: Report) -> Revision:
        answer: Revision = await ask(STEWARD_APP, "follow", follower, known, report)
        return answer

    async def report(self, follower: str, report: Report) -> None:
        await ask(STEWARD_APP, "report", follower, report)
