"""Builds engines that the store lacks, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from models.engines.spec import EngineSpec
from models.engines.store.store import Store

ROOT = Path(__file__).resolve().parents[2]  # whence a process with -m imports these packages and no others


class EngineBuilder:
    """Builds a model's engine in a process of low priority, since a server answers meanwhile and a build may be killed."""

    def __init__(self, spec: EngineSpec, store: Store) -> None:
        self._name = spec.artifact.manifest.name
        self._command = [
            *(sys.executable, "-m", "models.engines", str(spec.artifact.folder.resolve())),
            *("--engine", spec.backend.name, "--precision", spec.precision, "--store", store.location),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def start(self, done: Callable[[str], None]) -> None:
        """Calls `done` from another thread with the problem, or with an empty string."""
        threading.Thread(target=self._run, args=(done,), daemon=True, name=f"build-{self._name}").start()

    def stop(self) -> None:
        self._stopped = True
        if self._process is not None:
            self._process.terminate()

    def _run(self, done: Callable[[str], None]) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if self._stopped:
            self._process.terminate()
        _, said = self._process.communicate()
        if self._stopped:
            return
        code = self._process.returncode
        last = said.strip().splitlines()[-1:] or ["it ended without a word"]
        done("" if code == 0 else f"it could not be built (exit {code}): {last[0]}")
