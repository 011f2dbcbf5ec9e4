"""The manifests as built by `kubectl kustomize`, and lookups in them."""

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
OVERLAYS = sorted(path.name for path in FOLDER.iterdir())
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
    return {document["metadata"]["name"]: document for document in manifests(overlay) if document["kind"] == kind}


def settings(overlay: str) -> Settings:
    return load_settings(FOLDER / overlay / "convoy.yaml")


def ray_cluster(overlay: str) -> Document:
    (service,) = of_kind(overlay, "RayService").values()
    cluster: Document = service["spec"]["rayClusterConfig"]
    return cluster


def groups(overlay: str) -> dict[str, Document]:
    """The head group and the worker groups, by name."""
    cluster = ray_cluster(overlay)
    return {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def pod_templates(overlay: str) -> dict[str, Document]:
    """The pod templates of all worker groups and StatefulSets, by name."""
    found = {name: group["template"] for name, group in groups(overlay).items()}
    return found | {name: document["spec"]["template"] for name, document in of_kind(overlay, "StatefulSet").items()}


def container(template: Document) -> Document:
    (only,) = template["spec"]["containers"]
    result: Document = only
    return result


def ports(template: Document) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(template)["ports"]}


def selects(selector: Document, template: Document) -> bool:
    """Whether the matchLabels of a selector match a pod."""
    labels: Document = template["metadata"]["labels"]
    return selector.items() <= labels.items()
