"""Triton's server from the pytriton wheel, with a repository of two models of its Python backend: `image` and `tensor`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.settings import TRITON, Value

PATHS = "import sysconfig; print(sysconfig.get_path('purelib')); print(sysconfig.get_config_var('LIBDIR'))"
MODELS = {
    "image": (
        "ImageModel",
        'name: "image" data_type: TYPE_STRING dims: [1]',
        'name: "top5" data_type: TYPE_STRING dims: [1]',
    ),
    "tensor": (
        "TensorModel",
        'name: "input" data_type: TYPE_FP32 dims: [-1, -1, -1]',
        'name: "logits" data_type: TYPE_FP32 dims: [-1]',
    ),
}


def command(
    environment: Path, repository: Path, ports: tuple[int, int, int]
) -> tuple[Sequence[str | Path], dict[str, str]]:
    """The command that serves the repository, which is written, on these ports of HTTP, gRPC and metrics; and its variables."""
    site, libraries = subprocess.run(
        [environment / "bin" / "python", "-c", PATHS], capture_output=True, text=True, check=True
    ).stdout.split()
    root = Path(__file__).resolve().parents[2]
    write_repository(repository, [str(root), site])
    triton = Path(site) / "pytriton" / "tritonserver"
    options: dict[str, Value] = {
        "model-repository": str(repository),
        "backend-directory": str(triton / "backends"),
        "http-address": "127.0.0.1",
        "grpc-address": "127.0.0.1",
        "metrics-address": "127.0.0.1",
        "http-port": ports[0],
        "grpc-port": ports[1],
        "metrics-port": ports[2],
        **TRITON.options("command"),
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return [triton / "bin" / "tritonserver", *arguments], {"LD_LIBRARY_PATH": libraries}


def write_repository(repository: Path, paths: Sequence[str]) -> None:
    """Writes the configuration and the code of both models, which imports from `paths`: the backend ignores PYTHONPATH."""
    for name, (model, inputs, outputs) in MODELS.items():
        version = repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        code = (
            "import sys",
            f"sys.path[:0] = {list(paths)!r}",
            f"from benchmarks.peers.triton_app import {model} as TritonPythonModel",
            "",
        )
        (version / "model.py").write_text("\n".join(code))
        (repository / name / "config.pbtxt").write_text(_config(name, inputs, outputs))


def _config(name: str, inputs: str, outputs: str) -> str:
    batching = {key: value for key, value in TRITON.options("dynamic_batching").items() if value != "none"}
    return "\n".join(
        (
            f'name: "{name}"',
            'backend: "python"',
            *_fields(TRITON.options("model")),
            f"input [{{ {inputs} }}]",
            f"output [{{ {outputs} }}]",
            f"instance_group [{{ kind: KIND_CPU {' '.join(_fields(TRITON.options('instance_group')))} }}]",
            f"dynamic_batching {{ {' '.join(_fields(batching))} }}",
            f"response_cache {{ {' '.join(_fields(TRITON.options('response_cache')))} }}",
            "",
        )
    )


def _fields(options: dict[str, Value]) -> list[str]:
    return [f"{name}: {str(value).lower()}" for name, value in options.items()]
