"""Targets of the data plane beside the measured values in the tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Line = dict[str, str]  # a line of a table: cells by the column's head
Read = Callable[[Sequence[Line]], float]


@dataclass(frozen=True)
class Target:
    """A lower or upper bound `wanted` for the value that `read` finds in the lines of a section."""

    work: str
    wanted: float
    section: str
    read: Read
    at_most: bool = False

    def row(self, lines: Sequence[Line]) -> tuple[str, str, str, str]:
        """Work, target, reached, and whether that is enough; a section without figures has reached nothing yet."""
        wanted = f"{'≤' if self.at_most else '≥'} {self.wanted:g}"
        try:
            reached = self.read(lines)
        except LookupError:
            return self.work, wanted, "not measured", ""
        enough = reached <= self.wanted if self.at_most else reached >= self.wanted
        return self.work, wanted, f"{reached:.3g}", "yes" if enough else "**no**"


def tables(text: str) -> list[Line]:
    """The lines of all Markdown tables in a text."""
    lines: list[Line] = []
    head: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if head is None:
            head = cells
        elif not all(set(cell) <= set("-: ") for cell in cells):
            lines.append(dict(zip(head, cells, strict=True)))
    return lines


def cell(lines: Sequence[Line], name: str, column: str, in_flight: int | None = None) -> float:
    """A figure of the line that begins with `name`. Raises LookupError where there is none."""
    for line in lines:
        if next(iter(line.values())) == name and column in line and line.get("in flight") == _text(in_flight):
            return number(line[column])
    raise LookupError(f"{name}: {column}")


def number(text: str) -> float:
    """`1,234`, `5.6%` or `7e+03`."""
    return float(text.rstrip("%").replace(",", ""))


def _text(in_flight: int | None) -> str | None:
    return None if in_flight is None else str(in_flight)


def share(name: str, in_flight: int = 32, column: str = "of limit") -> Read:
    return lambda lines: cell(lines, name, column, in_flight)


def times(name: str, other: str, in_flight: int = 32) -> Read:
    """Requests/s of one beside another's."""
    return lambda lines: share(name, in_flight, "requests/s")(lines) / share(other, in_flight, "requests/s")(lines)


def _beyond_limit_ms(lines: Sequence[Line]) -> float:
    return cell(lines, "Convoy, local", "p50 ms", 1) - cell(lines, "limit", "p50 ms", 1)


def _extreme(
    choose: Callable[[list[float]], float], column: str, keep: Callable[[Line], bool] = lambda _: True
) -> Read:
    def read(lines: Sequence[Line]) -> float:
        found = [number(line[column]) for line in lines if line.get(column) and keep(line)]
        if not found:
            raise LookupError(column)
        return choose(found)

    return read


def _is_int8(line: Line) -> bool:
    return line["net"] == "resnet18" and line["precision"] == "int8"


LOCAL, DEDICATED = "Convoy, local", "Convoy, dedicated"
IN_TURNS = "Convoy, local, in turns with the limit"
TARGETS = (
    Target("LeNet-5, images over HTTP, 32 in flight: of the limit", 0.90, "lenet5_images", share(LOCAL)),
    Target("… times Triton", 1, "lenet5_images", times(LOCAL, "triton")),
    Target("… times LitServe", 6, "lenet5_images", times(LOCAL, "litserve")),
    Target("… times plain Ray Serve", 18, "lenet5_images", times(LOCAL, "rayserve")),
    Target("… one in flight: ms of p50 beyond the limit's", 0.15, "lenet5_images", _beyond_limit_ms, at_most=True),
    Target("… dedicated, 32 in flight: of the limit", 0.45, "lenet5_images", share(DEDICATED)),
    Target("… dedicated, one in flight: p50 ms", 3, "lenet5_images", share(DEDICATED, 1, "p50 ms"), at_most=True),
    Target("LeNet-5, tensors over HTTP, 32 in flight: of the limit", 0.85, "lenet5_tensors", share(LOCAL)),
    Target("… times Triton", 1, "lenet5_tensors", times(LOCAL, "triton")),
    Target("LeNet-5, images over gRPC, 32 in flight: of the limit", 0.85, "lenet5_grpc", share("ours:lenet5 image")),
    Target("… times Triton", 1, "lenet5_grpc", times("ours:lenet5 image", "triton image")),
    Target(
        "LeNet-5, tensors over gRPC, 32 in flight: of the limit", 0.85, "lenet5_grpc", share("ours:lenet5-tensor tensor")
    ),
    Target("… times Triton", 1, "lenet5_grpc", times("ours:lenet5-tensor tensor", "triton tensor")),
    Target("ResNet-18, photos, 16 in flight: of the limit", 1.10, "resnet18_images", share(IN_TURNS, 16)),
    Target("… of our own tight loop", 0.90, "resnet18_images", times(LOCAL, "tight loop", 16)),
    Target("ResNet-18, int8 times fp32, the best engine", 3, "precision", _extreme(max, "of fp32", _is_int8)),
    Target("SqueezeNet and CIFAR nets: of the tight loop, the least", 0.9, "precision", _extreme(
        min, "of the tight loop", lambda line: line["net"] != "resnet18")),
    Target("Twice the capacity offered: goodput of capacity", 0.9, "overload", lambda lines: cell(
        lines, "twice", "of capacity")),
    Target("Five times the capacity offered: the same", 0.9, "overload", lambda lines: cell(
        lines, "five times", "of capacity")),
    Target("… ms to a refusal, p99, the worse of both", 5, "overload", _extreme(
        max, "p99 of refusals, ms", lambda line: line["offered"] in ("twice", "five times")), at_most=True),
    *(
        Target(f"Overload by net, picture and deadline: goodput at {times}, the least", 0.9, "overload_matrix", _extreme(
            min, times)) for times in ("1.5 times", "2 times", "5 times")
    ),
    Target("… half the capacity, 1 s after, the least", 0.99, "overload_matrix", _extreme(min, "half, 1 s after")),
    Target("Rate with metrics, of that without", 0.97, "metrics_cost", _extreme(min, "rate with metrics, of that without")),
    Target("Seconds from `convoy up` to ready", 12, "start_up", lambda lines: cell(
        lines, "seconds to ready", "median"), at_most=True),
    Target("Cores busy when idle", 0.15, "start_up", lambda lines: cell(lines, "idle cores", "median"), at_most=True),
    Target("Cold start of a model from a warm store, s, the worst net", 2, "cold_start", _extreme(
        max, "s more for each"), at_most=True),
    Target("Growth of memory, %, the worse of both", 5, "memory", _extreme(max, "growth"), at_most=True),
)  # fmt: skip
