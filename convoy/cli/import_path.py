"""Checks that no file on PYTHONPATH hides a Python module that the server needs.

Ray's workers inherit PYTHONPATH. If a file there hides a package, every worker fails to start, and Ray retries for minutes before
it gives up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

import convoy
from convoy.errors import ConfigError

ROOT = Path(convoy.__file__).resolve().parents[1]
LIBRARY = Path(os.__file__).resolve().parent  # the standard library
INSTALLED = Path(click.__file__).resolve().parents[1]  # the folder of Convoy's dependencies
OWN_PACKAGES = {"convoy", "models", "serve"}
STANDARD = set(sys.stdlib_module_names) - set(sys.builtin_module_names)  # Python finds built-in modules first


def check_import_path(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError that names the first file on PYTHONPATH that hides a package of Convoy, or a module that it imports."""
    python_path = environment.get("PYTHONPATH")
    if not python_path:
        return
    for entry in python_path.split(os.pathsep):
        try:
            folder = Path(entry).resolve()  # for Python, an empty entry is the working directory
            files = [] if folder in (ROOT, INSTALLED, LIBRARY) or not folder.is_dir() else sorted(folder.iterdir())
        except (OSError, RuntimeError):  # unreadable, too long or a loop of links: Python skips it, too
            continue
        hiding = next(filter(_hides, files), None)
        if hiding is not None:
            raise ConfigError(
                f"{hiding} hides the Python module {hiding.stem!r} from the server, because PYTHONPATH contains "
                f"{entry!r}; rename it, or unset PYTHONPATH"
            )


def _hides(path: Path) -> bool:
    if os.path.isdir(path):  # Path.is_dir raises in a folder that may be listed but not entered
        return path.name in OWN_PACKAGES | STANDARD and os.path.isfile(path / "__init__.py")
    if path.suffix != ".py":
        return False
    # A package on PYTHONPATH may replace an installed one on purpose. A single file that replaces a package is an accident.
    return path.stem in OWN_PACKAGES or path.stem in STANDARD or (INSTALLED / path.stem / "__init__.py").is_file()
