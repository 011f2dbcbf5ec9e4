"""Verified, resumable and cached downloads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
from tqdm import tqdm

from convoy.errors import ArtifactError

MAX_BYTES = 2 << 30  # four times the largest public file


def download(url: str, sha256: str, folder: Path) -> Path:
    """Downloads `url` into `folder`, unless the file is there, and returns its path. Resumes partial downloads.

    The sha256 of the file must begin with `sha256`. Raises ArtifactError, with the manual steps.
    """
    path = folder / url.rsplit("/", 1)[1]
    if path.exists() and _hash(path).startswith(sha256):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        _fetch(url, partial)
    except httpx.HTTPError as error:
        raise ArtifactError(
            f"{url} could not be fetched ({type(error).__name__}: {error}); "
            f"run again to resume, or fetch it by hand and put it into {folder}"
        ) from error
    if not (digest := _hash(partial)).startswith(sha256):
        partial.unlink()
        raise ArtifactError(f"{url} is not the expected file: its sha256 is {digest}, not {sha256}…; it was deleted")
    return partial.replace(path)


def _fetch(url: str, partial: Path) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"} if done else {"Accept-Encoding": "identity"}
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the partial file is complete; its hash is checked next
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            done = 0
        total = done + int(response.headers.get("Content-Length", 0))
        with (
            partial.open("ab" if done else "wb") as file,
            tqdm(desc=partial.stem, total=total, initial=done, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for chunk in response.iter_raw():
                done += len(chunk)
                if done > MAX_BYTES:
                    raise ArtifactError(f"{url} is larger than {MAX_BYTES} bytes; the download was stopped")
                file.write(chunk)
                bar.update(len(chunk))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
