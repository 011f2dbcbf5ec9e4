"""Every object of every overlay matches the schema of its reader: Kubernetes, KubeRay or Ray Serve."""

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
    """The schema of a custom resource with unknown keys as errors, as in `kubectl apply --validate=strict`."""
    if isinstance(schema, list):
        return [closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(result.get("properties"), dict) and not result.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def check_core(document: Document) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_built_in_kinds_match_the_schemas_of_kubernetes(overlay: str) -> None:
    core = [document for document in manifests(overlay) if document["kind"] not in {RAY_SERVICE, *CUSTOM}]
    assert {document["kind"] for document in core} >= {"Namespace", "Service", "NetworkPolicy", "PodDisruptionBudget"}
    for document in core:
        check_core(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_templates_match_the_schema_of_kubernetes(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        check_core({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_resources_match_their_schemas(overlay: str) -> None:
    custom = [document for document in manifests(overlay) if document["kind"] in CUSTOM]
    assert {document["kind"] for document in custom} == set(CUSTOM)
    for document in custom:
        jsonschema.validate(document, CUSTOM[document["kind"]])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ray_service_matches_the_schema_of_kuberay(shared: Path, overlay: str) -> None:
    definition = yaml.safe_load((shared / "k8s" / "ray.io_rayservices.yaml").read_text())
    (document,) = of_kind(overlay, RAY_SERVICE).values()
    version = document["apiVersion"].partition("/")[2]
    (schema,) = (
        entry["schema"]["openAPIV3Schema"] for entry in definition["spec"]["versions"] if entry["name"] == version
    )
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    strict = jsonschema.Draft4Validator(closed(schema))
    assert list(strict.iter_errors(document)) == []
    misspelled = document | {"spec": document["spec"] | {"serveConfig": ""}}
    assert list(strict.iter_errors(misspelled))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_serve_config_is_up_to_date(overlay: str) -> None:
    rendered = deploy_yaml(settings(overlay))
    assert (FOLDER / overlay / "serve.yaml").read_text() == rendered, "run: make manifests"
    (service,) = of_kind(overlay, RAY_SERVICE).values()
    assert service["spec"]["serveConfigV2"] == rendered
    ServeDeploySchema.model_validate(yaml.safe_load(rendered))
