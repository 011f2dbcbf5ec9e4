"""Silences libtiff, which Pillow bundles: it writes to standard error for each defect of a file, which clients could use
to flood the log.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

MAPS = Path("/proc/self/maps")
HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")


def silence() -> None:
    """Removes libtiff's error and warning handlers, if it is a separate shared library. Pillow still raises errors."""
    lines = MAPS.read_text().splitlines() if MAPS.exists() else []
    for path in {line.split(maxsplit=5)[5] for line in lines if "libtiff" in line}:
        library = ctypes.CDLL(path)
        for name in HANDLERS:
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
