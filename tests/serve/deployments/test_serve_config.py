"""The Ray Serve config that `convoy render` writes."""

from __future__ import annotations

import yaml
from ray.serve.schema import ServeDeploySchema

from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments.serve_config import HEADER, deploy_document, deploy_yaml, environment_lines


def test_the_text_parses_to_the_document_and_is_deterministic() -> None:
    text = deploy_yaml(Settings())
    assert text.startswith(HEADER)
    assert yaml.safe_load(text) == deploy_document(Settings())
    assert text == deploy_yaml(Settings())


def test_the_schema_of_ray_serve_accepts_every_key() -> None:
    document = deploy_document(Settings())
    read = ServeDeploySchema.model_validate(document).model_dump(exclude_unset=True, mode="json")
    for ours, theirs in zip(document["applications"], read["applications"], strict=True):
        assert ours | {"deployments": None} == theirs | {"deployments": None}
        assert ours["deployments"] == theirs["deployments"]
    assert read["proxy_location"] == "Disabled"


def test_ray_serves_proxy_and_routes_are_disabled() -> None:
    document = deploy_document(Settings())
    assert document["proxy_location"] == "Disabled"
    assert {application["route_prefix"] for application in document["applications"]} == {None}


def test_a_cluster_keeps_the_configured_folder() -> None:
    settings = parse_settings(
        {"cores": 2, "runtime_dir": "/run/convoy", "cluster": {"gateway_nodes": 1, "host_nodes": 1}}
    )
    folders = {
        application["args"].get("folder") or application["args"].get("folder_name")
        for application in deploy_document(settings)["applications"]
        if application["name"] not in ("steward", "gateway")
    }
    assert folders == {"/run/convoy"}


def test_environment_lines_hold_a_name_and_a_value_each() -> None:
    assert environment_lines({"A": "1", "B": "two words"}) == "A=1\nB=two words\n"
