"""`python -m models.zoo`: counts every architecture again and writes `models/facts.json` and `docs/architectures.md`."""

from __future__ import annotations

from models.architectures.facts import FILE, read_facts, render_facts
from models.architectures.page import PAGE, render_page
from models.architectures.survey import survey
from models.zoo.registry import ARCHITECTURES


def main() -> None:
    FILE.write_text(render_facts([survey(one) for one in ARCHITECTURES.values()]))
    PAGE.write_text(render_page(read_facts()))


if __name__ == "__main__":
    main()
