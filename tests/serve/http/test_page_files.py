"""The page's libraries are unmodified, and the page refers only to its own server."""

from __future__ import annotations

import hashlib
import re

import pytest

from serve.http.web_page import PAGE

LIBRARIES = {
    "d3.min.js": "f2094bbf6141b359722c4fe454eb6c4b0f0e42cc10cc7af921fc158fceb86539",
    "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
}


@pytest.mark.parametrize(("name", "sha256"), LIBRARIES.items())
def test_a_library_is_unmodified(name: str, sha256: str) -> None:
    assert hashlib.sha256((PAGE / "libraries" / name).read_bytes()).hexdigest() == sha256, "run make page-libraries"


def test_every_library_has_its_licence() -> None:
    assert {"LICENSE.d3", "LICENSE.plot"} <= {file.name for file in (PAGE / "libraries").iterdir()}


def test_the_page_refers_only_to_its_own_files() -> None:
    for reference in re.findall(r'(?:src|href)="([^"]+)"', (PAGE / "index.html").read_text()):
        assert reference.startswith(("/page/", "/v1/", "/v2", "#")), reference
        if reference.startswith("/page/"):
            assert (PAGE / reference.removeprefix("/page/")).is_file()
