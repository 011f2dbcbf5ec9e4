"""`python -m models.readme`: writes the table of the bundled models into README.md, from their manifests."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.architectures.page import bundled_manifests
from models.artifact import Manifest

README = Path(__file__).parent.parent / "README.md"
HEAD = "| model | data set | top-1 | measured on | parameters | from |"
RULE = "| --- | --- | --- | --- | --- | --- |"


def table() -> str:
    """The Markdown table, a row per bundled model."""
    return "\n".join([HEAD, RULE, *map(_row, bundled_manifests())])


def update(text: str) -> str:
    """The README's text with a new table."""
    before, _, rest = text.partition(HEAD)
    _, _, after = rest.partition("\n\n")
    return f"{before}{table()}\n\n{after}"


def _row(manifest: Manifest) -> str:
    accuracy = manifest.accuracy
    measured = f"{accuracy['images']:,} images ({accuracy['split']})"
    return (
        f"| `{manifest.name}` | {manifest.dataset} | {accuracy['top1']:.2%} | {measured} "
        f"| {manifest.params:,} | {manifest.source} |"
    )


def main() -> None:
    """Writes the table of bundled models into README.md."""
    argparse.ArgumentParser(prog="python -m models.readme", description=__doc__).parse_args()
    README.write_text(update(README.read_text()))


if __name__ == "__main__":
    main()
