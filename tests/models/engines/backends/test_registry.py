from __future__ import annotations

import subprocess
import sys

import pytest

from convoy.engine_names import CPU_BACKENDS
from convoy.errors import ConfigError, NotFound
from models.engines.backends.registry import MODULES, find_backend, installed_backends


def test_all_cpu_backends_are_installed_for_tests() -> None:
    found = [one.name for one in installed_backends()]
    assert found[: len(CPU_BACKENDS)] == list(CPU_BACKENDS)
    for backend in map(find_backend, CPU_BACKENDS):
        assert {"fp32", "int8"} <= set(backend.precisions())
        assert backend.version[0].isdigit()


def test_an_unknown_backend_suggests_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'openvino'"):
        find_backend("openvin")


def test_a_backend_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, f"models.engines.backends.{MODULES['openvino']}", raising=False)
    with pytest.raises(ConfigError, match=r"convoy-serve\[openvino\]"):
        find_backend("openvino")
    assert "openvino" not in [one.name for one in installed_backends()]


def test_a_server_imports_only_what_it_uses() -> None:
    others = {"torch", "openvino", "onnx", "tensorrt", "cuda", "pynvml"}
    code = f"import sys, serve.deployments.gateway; print(sorted({others} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
