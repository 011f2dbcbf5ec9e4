"""Renders settings as Ray Serve's config document, the input of `serve deploy` and of KubeRay's RayService.

https://docs.ray.io/en/latest/serve/production-guide/config.html
"""

from __future__ import annotations

from typing import Any

import yaml
from ray.serve.schema import ServeDeploySchema

from serve.config.schema import Settings
from serve.deployments.applications import LOGGING, PROXY_LOCATION, applications

HEADER = "# Written by `convoy render`: change convoy.yaml and render again.\n"


def deploy_document(settings: Settings) -> dict[str, Any]:
    """The document. Ray's own schema has validated it; raises pydantic's ValidationError otherwise."""
    document = {
        "proxy_location": PROXY_LOCATION,
        "logging_config": LOGGING,
        "applications": [application.schema() for application in applications(settings)],
    }
    ServeDeploySchema.model_validate(document)
    return document


def deploy_yaml(settings: Settings) -> str:
    """The document as YAML. Deterministic: equal settings give equal text."""
    return HEADER + yaml.safe_dump(deploy_document(settings), sort_keys=False, width=120)


def environment_lines(environment: dict[str, str]) -> str:
    """Environment variables as `KEY=VALUE` lines, the form of Kustomize and Docker."""
    return "".join(f"{name}={value}\n" for name, value in environment.items())
