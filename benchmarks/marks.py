"""Generated parts of documentation pages: reads and replaces the text between two marks."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, begin: str, body: str, end: str) -> None:
    """Replaces the text between the marks. Raises ValueError unless the page has both, in this order."""
    before, rest = page.read_text("utf-8").split(begin, 1)
    _, after = rest.split(end, 1)
    page.write_text(f"{before}{begin}\n{body.strip()}\n{end}{after}", "utf-8")


def read_between(page: Path, begin: str, end: str) -> str:
    """The text between the marks. Raises ValueError unless the page has both, in this order."""
    _, rest = page.read_text("utf-8").split(begin, 1)
    body, _ = rest.split(end, 1)
    return body
