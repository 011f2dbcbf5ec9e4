"""libtiff, which Pillow brings along, tells standard error what is wrong with a file: as many lines as its author likes."""

from __future__ import annotations

import ctypes
from pathlib import Path

MAPS = Path("/proc/self/maps")
HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")


def silence() -> None:
    """Takes libtiff's handlers away, where it is a library of its own. What it finds, Pillow still raises."""
    lines = MAPS.read_text().splitlines() if MAPS.exists() else []
    for path in {line.split(maxsplit=5)[5] for line in lines if "libtiff" in line}:
        library = ctypes.CDLL(path)
        for name in HANDLERS:
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
