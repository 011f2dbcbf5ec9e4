"""docs/architectures.md and facts.json are up to date with the zoo."""

from __future__ import annotations

from models.architectures.facts import FILE, read_facts, render_facts
from models.architectures.page import PAGE, render_page


def test_the_page_matches_the_output_of_the_command() -> None:
    assert PAGE.read_text() == render_page(read_facts()), "outdated; run: python -m models.zoo"


def test_facts_survive_a_round_trip() -> None:
    assert FILE.read_text() == render_facts(list(read_facts().values()))


def test_every_architecture_has_one_row() -> None:
    rows = [line.split("|")[1].strip(" `") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == list(read_facts())
