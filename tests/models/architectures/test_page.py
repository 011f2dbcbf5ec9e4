from __future__ import annotations

from models.architectures.facts import FILE, read_facts, render_facts
from models.architectures.page import PAGE, render_page


def test_the_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text() == render_page(read_facts()), "write it again: python -m models.zoo"


def test_facts_are_written_as_they_are_read() -> None:
    assert FILE.read_text() == render_facts(list(read_facts().values()))


def test_every_architecture_has_one_row() -> None:
    rows = [line.split("|")[1].strip(" `") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == list(read_facts())
