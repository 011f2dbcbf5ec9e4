"""Questions from gateways to the deployments that decide: the steward, and the referee of experiments."""

from __future__ import annotations

from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayTaskError

from convoy.errors import ConvoyError, NotReady

STEWARD_APP = "steward"
REFEREE_APP = "referee"


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
