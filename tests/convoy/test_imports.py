from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["convoy", "convoy.client", "convoy.cli", "convoy.open_inference_grpc"])
def test_a_client_loads_neither_ray_nor_torch(module: str) -> None:
    script = (
        f"import sys, {module}; print(sorted(set(sys.modules) & {{'ray', 'torch', 'onnxruntime', 'serve', 'models'}}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_a_ledger_needs_a_database() -> None:
    found = "sorted(set(sys.modules) & {'sqlalchemy', 'alembic'})"
    script = f"import sys, serve.app, serve.gateway; print({found}); import serve.experiments.gateway; print({found})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['alembic', 'sqlalchemy']"]


def test_serving_loads_no_torch() -> None:
    script = "import sys, serve.app; print('torch' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
