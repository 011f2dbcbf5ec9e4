"""Atomic replacement of files: a write that fails leaves the old file unchanged."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Yields a path next to `path` to write to. When the block succeeds, that file replaces `path`; else it is removed.

    Symbolic links and the file's mode are kept. For a pipe or a device, `path` itself is yielded. Raises OSError.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()
    staged = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        yield staged
        with staged.open("rb") as written:
            os.fsync(written.fileno())
        if target.exists():
            shutil.copymode(target, staged)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Replaces a file atomically: a reader sees either the old or the new content. Raises OSError."""
    with staged_file(path) as staged:
        staged.write_bytes(content.encode() if isinstance(content, str) else content)


def is_same_file(first: Path, second: Path) -> bool:
    """Whether both paths lead to the same existing file, also through links."""
    return first.exists() and second.exists() and first.samefile(second)


def expand_home(path: str | Path) -> Path:
    """Replaces a leading `~` or `~user`. An unknown user's stays, where Path.expanduser raises RuntimeError."""
    return Path(os.path.expanduser(path))
