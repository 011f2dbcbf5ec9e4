"""The list of image suffixes, which the client, calibration and the load generator share."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy.client.requests import find_images
from convoy.errors import InvalidInput
from convoy.image_files import SUFFIXES, split_images

# Pillow's name of the format that each suffix usually stands for.
FORMATS = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".png": "PNG",
    ".pnm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}


def test_every_suffix_has_a_known_format() -> None:
    assert set(FORMATS) == SUFFIXES


def test_files_are_split_by_suffix_in_any_case_and_in_order(tmp_path: Path) -> None:
    for name in ("b.TIF", "a.gif", "deeper/c.Jpeg", "deeper/notes.txt", "photo.heic", "no_suffix"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    images, others = split_images(tmp_path.rglob("*"))
    assert [path.name for path in images] == ["a.gif", "b.TIF", "c.Jpeg"]
    assert [path.name for path in others] == ["notes.txt", "no_suffix", "photo.heic"]
    assert find_images(tmp_path) == images


def test_a_folder_without_images_is_refused_with_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no images in .*\.bmp, \.gif, .*\.webp"):
        find_images(tmp_path)


def test_a_path_that_the_system_refuses_is_not_an_image() -> None:
    assert split_images([Path("x" * 5000 + ".png")]) == ([], [])
