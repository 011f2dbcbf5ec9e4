"""Writes artifacts atomically: into a new folder next to the old one; then the two are exchanged in one step.

Only files of an artifact are ever replaced. A process that is killed leaves the old artifact intact, and a hidden folder
next to it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from convoy.errors import ArtifactError
from models.artifact import IMAGE_MODEL, MANIFEST, TENSOR_MODEL, WEIGHTS, Manifest

WRITTEN = frozenset({IMAGE_MODEL, TENSOR_MODEL, WEIGHTS, MANIFEST})
MOST_NAMED = 3
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
# Errors of renameat2 if the kernel or the file system cannot exchange folders.
CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV})
REMEDIES = {
    errno.ENOSPC: "free some room",
    errno.EDQUOT: "free some room",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EROFS: "make it writable",
}


def check_out(out: Path, inputs: Sequence[Path] = ()) -> None:
    """Raises ArtifactError unless `out` is absent, empty, or an artifact that holds none of the `inputs`."""
    with _explained(out):
        _check(out, out.resolve(), inputs)


@contextmanager
def new_artifact(out: Path, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """Yields an empty folder for a new artifact. When the block succeeds, it becomes `out`; else `out` is unchanged.

    Other files in the old artifact's folder (such as notices) are kept. Raises ArtifactError as `check_out` does, and when the
    folder cannot be written.
    """
    target = out.resolve()
    with _explained(out):
        _check(out, target, inputs)
        with (
            _folder_to_write_in(target.parent) as parent,
            tempfile.TemporaryDirectory(dir=parent, prefix=f".{target.name}-", ignore_cleanup_errors=True) as scratch,
        ):
            folder = Path(scratch) / "artifact"
            folder.mkdir()
            yield folder
            _check(out, target, inputs)  # building the artifact may have taken hours
            _install(folder, target)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Converts errors of the file system to ArtifactError, with the remedy."""
    try:
        yield
    except OSError as error:
        known = REMEDIES.get(error.errno or 0)
        remedy = f"{known}, or name another folder with --out" if known else "name another folder with --out"
        raise ArtifactError(f"{out} could not be written ({error}); {remedy}") from error


@contextmanager
def _folder_to_write_in(parent: Path) -> Iterator[Path]:
    """Creates the folder and its parents if needed. When the block fails, created folders are removed again."""
    absent = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        yield parent
    except BaseException:
        for folder in absent:
            with suppress(OSError):  # another process may have created a file in it
                folder.rmdir()
        raise


def _check(out: Path, target: Path, inputs: Sequence[Path]) -> None:
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"{out} is a file; name another folder with --out")
    for file in inputs:
        if any(place.is_relative_to(target) for place in (file.resolve(), file.parent.resolve() / file.name)):
            raise ArtifactError(f"{out} holds {file}, which the artifact is made from; name another folder with --out")
    if not target.is_dir():
        return
    if Path.cwd().is_relative_to(target):
        raise ArtifactError(f"{out} is the working directory and would be replaced; run from another directory")
    if foreign := _foreign(target):
        more = ", …" if len(foreign) > MOST_NAMED else ""
        raise ArtifactError(
            f"{out} holds files that are not of an artifact ({', '.join(foreign[:MOST_NAMED])}{more}); "
            "name another folder with --out, or move them away"
        )


def exchange(first: Path, second: Path) -> None:
    """Exchanges two folders of one file system atomically, with renameat2(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if libc.renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(second))


def _foreign(target: Path) -> list[str]:
    """Names of files that forbid writing an artifact here: all files, unless the folder already holds an artifact."""
    names = sorted(entry.name for entry in target.iterdir())
    try:
        manifest = Manifest.from_json((target / MANIFEST).read_text())
    except (OSError, UnicodeDecodeError, ArtifactError):
        return names
    return [name for name in names if name in WRITTEN - {MANIFEST} - set(manifest.files)]


def _install(folder: Path, target: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    if not target.exists() or not any(target.iterdir()):
        folder.rename(target)
        return
    _keep_others(target, folder)
    shutil.copymode(target, folder)
    try:
        exchange(folder, target)
    except OSError as error:
        if error.errno not in CANNOT_EXCHANGE:
            raise
        _replace(folder, target)


def _keep_others(old: Path, new: Path) -> None:
    """Copies other files to the new folder; moving them would damage the old folder if it failed midway."""
    own_files = WRITTEN | set(Manifest.from_json((old / MANIFEST).read_text()).files)
    for other in old.iterdir():
        if other.name in own_files:
            continue
        if other.is_dir() and not other.is_symlink():
            shutil.copytree(other, new / other.name, symlinks=True)
        else:
            shutil.copy2(other, new / other.name, follow_symlinks=False)


def _replace(folder: Path, target: Path) -> None:
    """Replaces the folder in two steps, if the file system cannot exchange folders."""
    aside = folder.with_name("old")
    target.rename(aside)
    try:
        folder.rename(target)
    except BaseException:
        aside.rename(target)
        raise
