"""Files that are replaced whole: a write that fails leaves the old file as it was."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. When the block ends, that file replaces `path`; when it fails, it is removed.

    A symbolic link stays, and so does the mode of the file. A pipe or a device is given as it is. Raises OSError.
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
    """Replaces a file: a reader sees the old content or the new one. Raises OSError."""
    with staged_file(path) as staged:
        staged.write_bytes(content.encode() if isinstance(content, str) else content)


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both paths lead to one existing file, be it through links."""
    return one.exists() and other.exists() and one.samefile(other)
