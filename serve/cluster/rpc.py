"""Questions to other deployments: to those that decide, the steward and the referee of experiments, and why one cannot start."""

from __future__ import annotations

import re
from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayTaskError

from convoy.errors import ConvoyError, NotReady

STEWARD_APP = "steward"
REFEREE_APP = "referee"
COMPLAINT = re.compile(r"^convoy\.errors\.\w+: (.+)$", re.M)


async def ask(app: str, method: str, *arguments: Any) -> Any:
    """What the only deployment of an application answers. Raises its ConvoyErrors, and NotReady when it is away."""
    try:
        handle = ray_serve.get_app_handle(app)
        return await getattr(handle, method).remote(*arguments)
    except RayTaskError as error:
        if isinstance(error.cause, ConvoyError):
            raise error.cause from error
        raise NotReady(f"the {app} failed: {type(error.cause).__name__}") from error
    except ConvoyError:  # as Serve's gRPC transport hands on what a deployment raises
        raise
    except Exception as error:  # whatever Ray raises for a deployment that is not there
        raise NotReady(f"the {app} is away ({type(error).__name__}); retry") from error


def start_problem(app: str) -> str:
    """The error of ours with which the last start of one of an application's replicas ended; empty: none has.

    Serve goes on trying for a while, longer each time: whoever waits for a replica may say so meanwhile, and try again.
    """
    status = ray_serve.status().applications.get(app)
    deployments = status.deployments.values() if status else ()
    return next(filter(None, (complaint(one.message) for one in deployments if one.status != "HEALTHY")), "")


def complaint(traceback: str) -> str:
    """The error of ours in what Serve says of a deployment; empty: there is none."""
    found = COMPLAINT.search(traceback)
    return found[1] if found else ""
