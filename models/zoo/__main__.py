"""`python -m models.zoo`: counts every architecture and writes `models/facts.json` and `docs/architectures.md`."""

from __future__ import annotations

import argparse

from models.architectures.facts import FILE, read_facts, render_facts
from models.architectures.page import PAGE, render_page
from models.architectures.survey import survey
from models.zoo.registry import ARCHITECTURES


def main() -> None:
    """Writes the facts of all architectures and the page that shows them."""
    argparse.ArgumentParser(prog="python -m models.zoo", description=__doc__).parse_args()
    FILE.write_text(render_facts([survey(architecture) for architecture in ARCHITECTURES.values()]))
    PAGE.write_text(render_page(read_facts()))


if __name__ == "__main__":
    main()
