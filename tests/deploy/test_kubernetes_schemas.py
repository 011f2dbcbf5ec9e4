"""Every object of every overlay by the schemas of those who read it: Kubernetes, KubeRay, Ray Serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.deployments.serve_config import deploy_yaml
from tests.deploy.manifests import FOLDER, OVERLAYS, Document, manifests, of_kind, pod_templates, settings

CUSTOM = yaml.safe_load((Path(__file__).parent / "schemas" / "custom-resources.yaml").read_text())
RAY_SERVICE = "RayService"


def closed(schema: Any) -> Any:
    """A custom resource's schema in which an unknown key is an error, as `kubectl apply --validate=strict` has it."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(result.get("properties"), dict) and not result.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def check_core(document: Document) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_own_kinds(overlay: str) -> None:
    core = [one for one in manifests(overlay) if one["kind"] not in {RAY_SERVICE, *CUSTOM}]
    assert {one["kind"] for one in core} >= {"Namespace", "Service", "NetworkPolicy", "PodDisruptionBudget"}
    for document in core:
        check_core(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_of_the_ray_cluster(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        check_core({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_resources(overlay: str) -> None:
    custom = [one for one in manifests(overlay) if one["kind"] in CUSTOM]
    assert {one["kind"] for one in custom} == set(CUSTOM)
    for document in custom:
        jsonschema.validate(document, CUSTOM[document["kind"]])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ray_service_by_kuberays_schema(shared: Path, overlay: str) -> None:
    definition = yaml.safe_load((shared / "k8s" / "ray.io_rayservices.yaml").read_text())
    (document,) = of_kind(overlay, RAY_SERVICE).values()
    version = document["apiVersion"].partition("/")[2]
    (schema,) = (one["schema"]["openAPIV3Schema"] for one in definition["spec"]["versions"] if one["name"] == version)
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    strict = jsonschema.Draft4Validator(closed(schema))
    assert list(strict.iter_errors(document)) == []
    document_with_a_slip = document | {"spec": document["spec"] | {"serveConfig": ""}}
    assert list(strict.iter_errors(document_with_a_slip))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_serve_config_is_what_render_gives(overlay: str) -> None:
    rendered = deploy_yaml(settings(overlay))
    assert (FOLDER / overlay / "serve.yaml").read_text() == rendered, "run: make manifests"
    (service,) = of_kind(overlay, RAY_SERVICE).values()
    assert service["spec"]["serveConfigV2"] == rendered
    ServeDeploySchema.model_validate(yaml.safe_load(rendered))
