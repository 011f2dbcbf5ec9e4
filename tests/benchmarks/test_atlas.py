"""docs/atlas.md and its plots, which Chromium draws from the data file."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.atlas import BEGIN, DOCS, END, write
from serve.atlas.data import load_atlas, save_atlas
from serve.atlas.findings import findings
from tests.serve.atlas.atlases import atlas_of, cell, network


def test_the_document_shows_every_plot_and_every_finding(tmp_path: Path) -> None:
    nets = [network(f"net{size}", size * 10**8, 0.5 + 0.02 * size) for size in range(1, 8)]
    digits = [network(f"digit{size}", size * 10**6, 0.97, "mnist") for size in range(1, 3)]
    atlas = atlas_of(
        [*nets, *digits], [cell(net, batch, net.macs / 1e10, 9.0) for net in (*nets, *digits) for batch in (1, 16)]
    )
    (tmp_path / "atlas").mkdir()
    (tmp_path / "atlas" / "stale.svg").touch()
    save_atlas(atlas, tmp_path / "atlas" / "atlas.json")
    document = tmp_path / "atlas.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(tmp_path / "atlas" / "atlas.json", document)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "\nold\n" not in text
    for finding in findings(atlas):
        assert finding.claim in text
    shown = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(shown) == 12  # three charts for each group of accuracies, and six of all networks
    assert {tmp_path / name for name in shown} == set((tmp_path / "atlas").glob("*.svg"))
    for name in shown:
        drawn = ElementTree.parse(tmp_path / name).getroot()
        assert drawn.tag.endswith("svg")
        assert "--accent" in ElementTree.tostring(drawn, "unicode")


def test_the_committed_plots_are_those_of_the_committed_data() -> None:
    text = (DOCS / "atlas.md").read_text()
    for finding in findings(load_atlas(DOCS / "atlas" / "atlas.json")):
        assert finding.claim in text
    shown = {DOCS / name for name in re.findall(r"!\[.*\]\((.*)\)", text)}
    assert shown == set((DOCS / "atlas").glob("*.svg"))
