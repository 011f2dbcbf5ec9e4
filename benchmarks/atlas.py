"""`python -m benchmarks.atlas`: writes docs/atlas.md and its plots from a data file of `convoy atlas`.

Chromium renders the atlas' web page; each of its plots is saved as an SVG file with the colours of the page.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from benchmarks.marks import write_between
from serve.atlas.data import Atlas, load_atlas
from serve.atlas.findings import findings
from serve.atlas.view import PAGE as PAGE_FILES
from serve.atlas.view import write_page

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- made by python -m benchmarks.atlas -->", "<!-- end -->"
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"  # installed by `make test-setup`
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1200,1000")
COLOURS = re.compile(r":root \{.*?\}", re.DOTALL)
CHARTS = """
const serializer = new XMLSerializer();
return [...document.querySelectorAll(".chart")].map(frame => {
  const note = frame.previousElementSibling, titled = note.tagName === "H3";
  const title = titled ? note : note.previousElementSibling;
  return [title.textContent, titled ? "" : note.textContent, serializer.serializeToString(frame.querySelector("svg"))];
});
"""


@dataclass(frozen=True)
class Chart:
    """A plot of the atlas: its title, the sentence under it, and an SVG document."""

    title: str
    note: str
    svg: str

    @property
    def file(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") + ".svg"


def draw(page: Path) -> list[Chart]:
    """The charts of an atlas' web page, rendered by Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(page.resolve().as_uri())
        found = driver.execute_script(CHARTS)
    finally:
        driver.quit()
    return [Chart(title, note, _with_colours(svg)) for title, note, svg in found]


def _with_colours(svg: str) -> str:
    """An SVG document that holds the page's colours, light and dark."""
    colours = COLOURS.search((PAGE_FILES / "page.css").read_text())
    assert colours is not None
    style = f"<style>{colours.group()} svg {{ color: var(--ink); background: var(--ground); }}</style>"
    head, close, rest = svg.partition(">")
    return f"{head}{close}{style}{rest}\n"


def section(atlas: Atlas, charts: Sequence[Chart], folder: str) -> str:
    """Markdown: the machine, the findings and the plots."""
    machine = atlas.machine
    blocks = [
        f"*{machine.cpu}, {machine.threads} threads of {machine.cores} cores, {machine.system}, {machine.engine}. "
        f"{len(atlas.networks)} networks, {len(atlas.cells)} cells; [all figures]({folder}/atlas.html), "
        f"[data]({folder}/atlas.json)*"
    ]
    verdicts = [
        f"- **{finding.verdict.capitalize()}**: {finding.claim} {finding.evidence[0].upper()}{finding.evidence[1:]}."
        for finding in findings(atlas)
    ]
    blocks.append("\n".join(verdicts))
    for chart in charts:
        blocks.append("\n\n".join(text for text in (f"### {chart.title}", chart.note) if text))
        blocks.append(f"![{chart.title}]({folder}/{chart.file})")
    return "\n\n".join(blocks)


def write(data: Path, document: Path) -> None:
    """Writes the page and the plots of a data file beside it, and its section into the document."""
    atlas = load_atlas(data)
    page = data.with_suffix(".html")
    write_page(atlas, page)
    charts = draw(page)
    for old in data.parent.glob("*.svg"):
        old.unlink()
    for chart in charts:
        (data.parent / chart.file).write_text(chart.svg)
    write_between(document, BEGIN, section(atlas, charts, data.parent.name), END)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=DOCS / "atlas" / "atlas.json",
        help="data file of `convoy atlas`  [default: docs/atlas/atlas.json]",
    )
    options = parser.parse_args()
    write(options.data, DOCS / "atlas.md")


if __name__ == "__main__":
    main()
