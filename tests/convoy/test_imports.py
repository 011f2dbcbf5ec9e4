"""Which heavy packages an import of the client, a server or a ledger loads."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["convoy", "convoy.client", "convoy.cli", "convoy.wire.oip_grpc"])
def test_a_client_loads_neither_ray_nor_torch(module: str) -> None:
    script = (
        f"import sys, {module}; print(sorted(set(sys.modules) & {{'ray', 'torch', 'onnxruntime', 'serve', 'models'}}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_a_ledger_loads_a_database() -> None:
    found = "sorted(set(sys.modules) & {'sqlalchemy', 'alembic'})"
    started = "serve.deployments.local, serve.deployments.gateway"
    script = f"import sys, {started}; print({found}); import serve.experiments.manager; print({found})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['alembic', 'sqlalchemy']"]


def test_serving_loads_no_torch() -> None:
    script = "import sys, serve.deployments.local; print('torch' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
