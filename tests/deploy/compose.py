"""Reads docker-compose.yml, and runs its command lines as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY

FILE = REPOSITORY / "docker-compose.yml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]


def mounted(service: str) -> dict[str, Path]:
    """Files and folders of the repository that are mounted into a container, by their path in it."""
    pairs = (volume.split(":")[:2] for volume in SERVICES[service].get("volumes", ()))
    return {inside: REPOSITORY / outside for outside, inside in pairs if outside.startswith(".")}


def health_command(service: str) -> list[str]:
    kind, *command = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    return [str(word) for word in command]


def here(command: list[str], places: dict[str, object]) -> list[str]:
    """A container's command line with paths, addresses and sizes replaced by those of this machine."""
    words = []
    for word in command:
        for inside, outside in places.items():
            word = word.replace(inside, str(outside))
        words.append(word)
    return words


def environment() -> dict[str, str]:
    """This environment with the `convoy` and `python` of the tests first on the path, as those of the image in a container."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextmanager
def process(command: list[str], folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command during the block, then terminates it as Docker does. Fails if its exit code is not 0."""
    with (folder / f"{name}.log").open("w") as log:
        started = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
    try:
        yield started
    finally:
        started.terminate()
        status = started.wait(60)
    assert status == 0, (folder / f"{name}.log").read_text()
