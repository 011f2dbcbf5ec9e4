"""`convoy render`: the Ray Serve config document."""

from __future__ import annotations

from pathlib import Path

import yaml
from click.testing import CliRunner

from convoy.cli import main
from serve.config.loading import load_settings
from serve.deployments.local import RAY_ENVIRONMENT
from serve.deployments.serve_config import deploy_document


def test_a_file_is_rendered_to_a_file(tmp_path: Path) -> None:
    config, output = tmp_path / "convoy.yaml", tmp_path / "serve.yaml"
    config.write_text("models: [{name: lenet5-mnist, target_ms: 7}]")
    answer = CliRunner().invoke(main, ["render", "--config", str(config), "--output", str(output)])
    assert answer.exit_code == 0, answer.output
    assert answer.output == ""
    assert yaml.safe_load(output.read_text()) == deploy_document(load_settings(config))


def test_without_a_file_the_bundled_models_are_printed() -> None:
    answer = CliRunner().invoke(main, ["render"])
    names = [application["name"] for application in yaml.safe_load(answer.output)["applications"]]
    assert names == ["meter", "steward", "host-squeezenet1_1-imagenet", "gateway"]


def test_the_environment_of_every_node_is_printed() -> None:
    answer = CliRunner().invoke(main, ["render", "--environment"])
    assert dict(line.split("=", 1) for line in answer.output.splitlines()) == RAY_ENVIRONMENT


def test_an_invalid_configuration_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    config = tmp_path / "convoy.yaml"
    config.write_text("modles: []")
    answer = CliRunner().invoke(main, ["render", "--config", str(config)])
    assert answer.exit_code == 1
    assert "did you mean 'models'?" in answer.output


def test_the_output_must_not_overwrite_the_configuration(tmp_path: Path) -> None:
    config, link = tmp_path / "convoy.yaml", tmp_path / "link.yaml"
    config.write_text("models: [{name: lenet5-mnist}]")
    link.symlink_to(config)
    for output in (config, link):
        answer = CliRunner().invoke(main, ["render", "--config", str(config), "--output", str(output)])
        assert answer.exit_code == 1
        assert "would overwrite the configuration; name another file" in answer.output
    assert config.read_text() == "models: [{name: lenet5-mnist}]"
