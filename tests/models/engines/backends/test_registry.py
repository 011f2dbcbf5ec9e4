"""Finding backends, installed or not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from convoy.engine_names import CPU_BACKENDS
from convoy.errors import ConfigError, NotFound
from models.engines.backends.registry import MODULES, find_backend, installed_backends


def test_the_test_environment_has_all_cpu_backends() -> None:
    names = [backend.name for backend in installed_backends()]
    assert names[: len(CPU_BACKENDS)] == list(CPU_BACKENDS)
    for backend in map(find_backend, CPU_BACKENDS):
        assert {"fp32", "int8"} <= set(backend.precisions())
        assert backend.version[0].isdigit()


def test_an_unknown_backend_suggests_the_closest_one() -> None:
    with pytest.raises(NotFound, match="did you mean 'openvino'"):
        find_backend("openvin")


def test_a_backend_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, f"models.engines.backends.{MODULES['openvino']}", raising=False)
    with pytest.raises(ConfigError, match=r"convoy-serve\[openvino\]"):
        find_backend("openvino")
    assert "openvino" not in [backend.name for backend in installed_backends()]


def test_a_gateway_does_not_import_libraries_of_other_backends() -> None:
    others = {"torch", "openvino", "onnx", "tensorrt", "cuda", "pynvml"}
    code = f"import sys, serve.deployments.gateway; print(sorted({others} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
