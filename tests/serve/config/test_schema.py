"""Settings: defaults, errors with hints, files, and the catalog that gateways receive."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path

import pytest

from convoy.errors import ConfigError
from serve.config.loading import load_settings, parse_settings
from serve.config.schema import Catalog, Settings
from tests.conftest import REPOSITORY


def test_the_default_ports_are_tritons_on_loopback() -> None:
    listen = Settings().listen
    assert (listen.host, listen.http_port, listen.grpc_port, listen.metrics_port) == ("127.0.0.1", 8000, 8001, 8002)


def test_the_default_catalog_uses_both_placements() -> None:
    assert {model.placement for model in Settings().models} == {"local", "dedicated"}
    assert all(model.folder.is_dir() for model in Settings().models)


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ({"listn": {}}, "'listen'"),
        ({"listen": {"http_prot": 1}}, "'http_port'"),
        ({"limits": {"zzz": 1}}, "body_bytes"),
        ({"limits": {"body_bytes": 2**31}}, "bodies_bytes"),
        ({"models": [{"name": "a", "placment": "local"}]}, "'placement'"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "named twice: a"),
        ({"models": [{"name": "a-tensor"}]}, "-tensor"),
        ({"models": [{"name": "Not A Name"}]}, "models.0.name"),
        ({"ensembles": [{"name": "e", "members": [{"model": "lenet5-mnst"}]}]}, "did you mean 'lenet5-mnist'?"),
        ({"ensembles": [{"name": "lenet5-mnist", "members": [{"model": "lenet5-mnist"}]}]}, "named twice"),
        ({"ensembles": [{"name": "e", "members": []}]}, "ensembles.0.members"),
        ({"ensembles": [{"name": "e", "members": [{"model": "lenet5-mnist", "viws": ["flip"]}]}]}, "'views'"),
        ({"ensembles": [{"name": "e", "members": [{"model": "lenet5-mnist", "views": ["flap"]}]}]}, "flip"),
        ({"ensembles": [{"name": "e", "members": [{"model": "lenet5-mnist", "weight": 0}]}]}, "weight"),
        (
            {"ensembles": [{"name": "e", "members": [{"model": "lenet5-mnist"}], "min_members": 2}]},
            "there are 1 members",
        ),
        ({"cascades": [{"name": "c", "stages": [{"model": "lenet5-mnist"}]}]}, "cascades.0.stages"),
        (
            {"cascades": [{"name": "c", "stages": [{"model": "lenet5-mnist"}, {"model": "resnet20-cifar10"}]}]},
            "needs a margin or an entropy",
        ),
        (
            {"cascades": [{"name": "c", "stages": [{"model": "a", "margin": 0.1}, {"model": "b", "margin": 0.1}]}]},
            "leave out its threshold",
        ),
        (
            {"cascades": [{"name": "c", "stages": [{"model": "a", "margin": 0.1, "entropy": 1}, {"model": "b"}]}]},
            "not both",
        ),
        ({"models": [{"name": "a", "placement": "moon"}]}, "models.0.placement"),
        ({"listen": {"http_port": 8001}}, "three different ports"),
        ({"listen": {"http_port": 0}}, "listen.http_port"),
        ({"gateways": 0}, "gateways"),
        ({"cluster": {"host_nodes": 1}}, "cluster.gateway_nodes"),
        ({"cluster": {"gateway_nodes": 1}, "cores": 2}, "runtime_dir"),
        ({"cluster": {"gateway_nodes": 1}, "cores": 2, "runtime_dir": "/run/convoy"}, "squeezenet1_1-imagenet"),
        ([], "valid dictionary"),
        ({"models": [{}]}, "models.0.name is missing"),
        ({"models": [{"zzz": number} for number in range(20)]}, "; and 30 more problems"),
    ],
)
def test_an_invalid_document_is_refused_with_a_hint(document: object, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(document)
    assert hint in str(caught.value)


def test_settings_are_read_from_a_file_or_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "convoy.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(path)
    path.write_text("listen: {http_port: 9000}")
    assert load_settings(path).listen.http_port == 9000
    path.write_bytes("logging: {}  # für alle".encode("latin-1"))
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load_settings(path)
    path.write_text("")
    assert load_settings(path) == Settings()
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_settings(path)


def test_the_catalog_holds_the_settings_that_gateways_follow() -> None:
    settings = parse_settings({"models": [{"name": "a"}], "gateways": 2, "keys": [{"name": "k", "sha256": "0" * 64}]})
    assert isinstance(settings, Catalog)
    assert settings.model_copy(update={"keys": ()}).catalog.keys == ()
    assert type(settings.catalog) is Catalog
    assert settings.catalog == Catalog(models=settings.models, keys=settings.keys)
    assert settings == parse_settings(settings.model_dump(mode="json"))
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 Ray pickles settings
    assert "catalog" not in settings.model_dump()


def test_settings_are_unchanged_after_json_serialization() -> None:
    settings = parse_settings({"models": [{"name": "lenet5-mnist", "max_batch": 4}]})
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


def test_the_environment_is_read_in_one_module_only() -> None:
    command = ["git", "grep", "-lE", r"os\.(environ|getenv)", "--", "serve", "convoy"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.split()
    checks = {"convoy/cli/import_path.py"}  # checks PYTHONPATH before any package of Convoy is imported
    assert set(found) <= {"serve/config/schema.py", "serve/deployments/local.py"} | checks
