"""A table of an architecture's layers, with lines that connect each row to the rows of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

from models.architectures.counts import Operation, count_params, trace
from models.architectures.survey import build_without_numbers
from models.zoo.registry import find_architecture

MOST_RAILS = 12


def layers_table(name: str) -> str:
    """The table as text. Raises NotFound with the closest known architecture."""
    architecture = find_architecture(name)
    net = build_without_numbers(architecture)
    traced = trace(net, architecture.input)
    image = Operation("", "image", architecture.input, 0, 0, ())
    rows = [("", "operation", "layer", "output", "parameters", "MACs")]
    for rail, operation in zip(draw_rails(traced.operations), [image, *traced.operations], strict=True):
        counts = (f"{operation.params:,}", f"{operation.macs:,}") if operation.macs else ("", "")
        rows.append((rail, operation.kind, operation.name, "x".join(map(str, operation.output)), *counts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column >= 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    total = f"{count_params(net):,} parameters, {traced.macs:,} MACs"
    return "\n".join(
        [f"{name}: {architecture.family}, {architecture.paper}, {architecture.year}", "", *lines, "", total]
    )


def draw_rails(operations: Sequence[Operation]) -> list[str]:
    """One string per row, the image first. A line connects a row with each later row, except the next, that uses it."""
    last_use: dict[int, int] = {}
    for position, operation in enumerate(operations):
        for source in operation.sources:
            if source != position - 1:
                last_use[source] = position
    rails: list[int | None] = []
    drawn = []
    for position in range(-1, len(operations)):
        sources = operations[position].sources if position >= 0 else ()
        used = {source for source in sources if source != position - 1}
        marks = [" " if source is None else _mark(source in used, last_use[source] == position) for source in rails]
        rails = [None if source is None or last_use[source] == position else source for source in rails]
        if position in last_use:
            lane = rails.index(None) if None in rails else len(rails)
            rails[lane : lane + 1] = [position]
            marks[lane : lane + 1] = ["┤" if marks[lane : lane + 1] == ["┘"] else "┐"]
        text = "●" + "".join(marks)
        drawn.append(text if len(marks) <= MOST_RAILS else text[:MOST_RAILS] + "…")
    return [text.rstrip() for text in drawn]


def _mark(used: bool, ends: bool) -> str:
    return "┘" if ends else "┤" if used else "│"
