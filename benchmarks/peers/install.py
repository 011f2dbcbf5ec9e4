"""`python -m benchmarks.peers.install`: makes the peers' environments, of about 4 GB. Needs pip's package index.

All get the ONNX Runtime of this environment, so that every server runs the same engine.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

HOME = Path.home() / ".cache" / "convoy-bench"
ENGINE = (f"onnxruntime=={version('onnxruntime')}", "numpy", "orjson", "pillow")
PEERS = {
    "litserve": ("litserve==0.2.19", "pyzmq"),
    "bentoml": ("bentoml==1.4.39",),
    "rayserve": (f"ray[serve]=={version('ray')}",),
    "triton": ("nvidia-pytriton==0.7.0", "setuptools<81"),
    "granian": ("granian[uvloop]==2.8.7",),
}


def install(home: Path, name: str) -> None:
    """Makes one environment. Raises subprocess.CalledProcessError."""
    folder = home / name
    venv.create(folder, with_pip=True, clear=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *ENGINE, *PEERS[name]], check=True)
    if name == "triton":
        _copy_stub(folder)


def _copy_stub(folder: Path) -> None:
    """Puts the Python backend's executable for this Python version where Triton looks for it; pytriton does so when it starts."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    triton = folder / "lib" / f"python{python}" / "site-packages" / "pytriton" / "tritonserver"
    stub = "triton_python_backend_stub"
    shutil.copy2(triton / "python_backend_stubs" / python / stub, triton / "backends" / "python" / stub)


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[__name__]))
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"{', '.join(PEERS)}  [default: all]")
    parser.add_argument("--home", type=Path, default=HOME, help="folder of the environments  [default: %(default)s]")
    arguments = parser.parse_args()
    if unknown := set(arguments.peers) - set(PEERS):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    for name in arguments.peers or PEERS:
        print(f"{name} …", flush=True)
        install(arguments.home, name)


if __name__ == "__main__":
    main()
