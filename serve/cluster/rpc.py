"""Calls to the coordinator and the experiment controller, and the start-up errors of any deployment."""

from __future__ import annotations

import re
from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayTaskError

from convoy.errors import ConvoyError, NotReady

STEWARD_APP = "steward"  # the coordinator's Ray application
REFEREE_APP = "referee"  # the Ray application of the experiment controller
COMPLAINT = re.compile(r"^convoy\.errors\.\w+: (.+)$", re.M)


async def ask(app: str, method: str, *arguments: Any) -> Any:
    """Calls a method of an application's only deployment. Raises its ConvoyErrors, and NotReady when it does not answer."""
    try:
        handle = ray_serve.get_app_handle(app)
        return await getattr(handle, method).remote(*arguments)
    except RayTaskError as error:
        if isinstance(error.cause, ConvoyError):
            raise error.cause from error
        raise NotReady(f"application {app!r} failed: {type(error.cause).__name__}") from error
    except ConvoyError:  # Serve's gRPC transport raises the deployment's own exception
        raise
    except Exception as error:  # Ray raises errors of many types when a deployment is missing
        raise NotReady(f"application {app!r} does not answer ({type(error).__name__}); retry") from error


def start_problem(app: str) -> str:
    """The ConvoyError of the last replica of an application that failed to start; empty if none failed.

    Serve retries with growing pauses. Meanwhile the caller can report the error, and retry as well.
    """
    status = ray_serve.status().applications.get(app)
    deployments = status.deployments.values() if status else ()
    return next(filter(None, (complaint(state.message) for state in deployments if state.status != "HEALTHY")), "")


def complaint(traceback: str) -> str:
    """The message of the first ConvoyError in a traceback from Serve's status; empty when there is none."""
    found = COMPLAINT.search(traceback)
    return found[1] if found else ""
