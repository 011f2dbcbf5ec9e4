"""Builds engines that are missing from the store, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from models.engines.spec import EngineSpec
from models.engines.store.store import Store

# The folder of the packages `models`, `serve` and `convoy`. Python puts the working directory first on the path of a process
# with -m: in the user's folder, a file named models.py would be imported instead; in serve/, serve/http would hide http.
ROOT = Path(__file__).resolve().parents[2]


class EngineBuilder:
    """Builds one engine in a process of low priority: a server answers meanwhile, and a build may run out of memory."""

    def __init__(self, spec: EngineSpec, store: Store) -> None:
        self._name = spec.artifact.manifest.name
        self._command = [
            *(sys.executable, "-m", "models.engines", str(spec.artifact.folder.resolve())),
            *("--engine", spec.backend.name, "--precision", spec.precision, "--store", store.location),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def start(self, done: Callable[[str], None]) -> None:
        """Calls `done` from another thread: with the reason if the build failed, with an empty string if not."""
        threading.Thread(target=self._run, args=(done,), daemon=True, name=f"build-{self._name}").start()

    def stop(self) -> None:
        """Ends the build process and starts no other."""
        self._stopped = True
        if self._process is not None:
            self._process.terminate()

    def _run(self, done: Callable[[str], None]) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if self._stopped:
            self._process.terminate()
        _, errors = self._process.communicate()
        if self._stopped:
            return
        code = self._process.returncode
        last = errors.strip().splitlines()[-1:] or ["no error message"]
        done("" if code == 0 else f"the build failed (exit {code}): {last[0]}")
