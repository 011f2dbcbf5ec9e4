"""What is known of every architecture, as data that needs no torch: `facts.json`, written by `python -m models.zoo`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "facts.json"


@dataclass(frozen=True)
class Facts:
    """One architecture. `macs` and `activations` (outputs of convolutions and linear layers) are for one image.

    `published_top1` (0..1) is what `published_by` reported; None where nobody did for just this net.
    """

    name: str
    family: str
    paper: str
    year: int
    input: tuple[int, int, int]
    classes: int
    params: int
    macs: int
    activations: int
    published_top1: float | None
    published_by: str

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


def read_facts(file: Path = FILE) -> dict[str, Facts]:
    """Facts by name, in the order of the papers."""
    rows = json.loads(file.read_text())
    return {row["name"]: Facts(**row | {"input": tuple(row["input"])}) for row in rows}


def render_facts(facts: list[Facts]) -> str:
    """The text of `facts.json`: one architecture a line."""
    return "[\n" + ",\n".join(json.dumps(one.to_document()) for one in facts) + "\n]\n"
