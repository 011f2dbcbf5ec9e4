"""The manifests as `kubectl kustomize` gives them."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from serve.config.loading import load_settings
from serve.config.schema import Settings
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes" / "overlays"
OVERLAYS = sorted(one.name for one in FOLDER.iterdir())
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"

Document = dict[str, Any]


@functools.cache
def manifests(overlay: str) -> tuple[Document, ...]:
    """Every object of an overlay."""
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run(
        [str(kubectl), "kustomize", str(FOLDER / overlay)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Document]:
    """Objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in manifests(overlay) if one["kind"] == kind}


def settings(overlay: str) -> Settings:
    return load_settings(FOLDER / overlay / "convoy.yaml")


def ray_cluster(overlay: str) -> Document:
    (service,) = of_kind(overlay, "RayService").values()
    cluster: Document = service["spec"]["rayClusterConfig"]
    return cluster


def groups(overlay: str) -> dict[str, Document]:
    """The head's group and those of workers, by name."""
    cluster = ray_cluster(overlay)
    return {"head": cluster["headGroupSpec"]} | {one["groupName"]: one for one in cluster["workerGroupSpecs"]}


def pod_templates(overlay: str) -> dict[str, Document]:
    """Pod templates of all objects, by what they are of."""
    found = {name: group["template"] for name, group in groups(overlay).items()}
    return found | {name: one["spec"]["template"] for name, one in of_kind(overlay, "StatefulSet").items()}


def container(template: Document) -> Document:
    (only,) = template["spec"]["containers"]
    result: Document = only
    return result


def ports(template: Document) -> dict[str, int]:
    return {one["name"]: one["containerPort"] for one in container(template)["ports"]}


def selects(selector: Document, template: Document) -> bool:
    """Whether a label selector's matchLabels hold for a pod."""
    labels: Document = template["metadata"]["labels"]
    return selector.items() <= labels.items()
