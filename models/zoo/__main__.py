"""`python -m models.zoo`: counts every architecture again and writes `models/facts.json` and `docs/architectures.md`."""

from __future__ import annotations

from models.architectures_page import PAGE, render_page
from models.facts import FILE, read_facts, render_facts
from models.zoo.registry import ARCHITECTURES
from models.zoo.survey import survey


def main() -> None:
    FILE.write_text(render_facts([survey(one) for one in ARCHITECTURES.values()]))
    PAGE.write_text(render_page(read_facts()))


if __name__ == "__main__":
    main()
