"""Targets of the data plane, compared with the measured values in the tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.peers.settings import BENTOML, LITSERVE, RAY_TUNED, TRITON
from benchmarks.turns import LIMIT

LOCAL, DEDICATED = "Convoy, local", "Convoy, dedicated"
CPU_COLUMN = "CPU µs per request"
Line = dict[str, str]  # a row of a Markdown table: cells by the heading of their column
Read = Callable[[Sequence[Line]], float]


@dataclass(frozen=True)
class Target:
    """A lower (or, if `at_most`, upper) bound `wanted` for the value that `read` computes from the rows of a section."""

    work: str
    wanted: float
    section: str
    read: Read
    at_most: bool = False

    def row(self, lines: Sequence[Line]) -> tuple[str, str, str, str]:
        """Workload, target, measured value, and whether it meets the target; "not measured" if the section has no such value."""
        wanted = f"{'≤' if self.at_most else '≥'} {self.wanted:g}"
        try:
            measured = self.read(lines)
        except LookupError:
            return self.work, wanted, "not measured", ""
        met = measured <= self.wanted if self.at_most else measured >= self.wanted
        return self.work, wanted, f"{measured:.3g}", "yes" if met else "**no**"


def tables(text: str) -> list[Line]:
    """The rows of all Markdown tables in a text."""
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
    """The number in `column` of the row that begins with `name`. Raises LookupError if there is none."""
    for line in lines:
        if next(iter(line.values())) == name and line.get(column) and line.get("in flight") == _text(in_flight):
            return number(line[column])
    raise LookupError(f"{name}: {column}")


def number(text: str) -> float:
    """Parses a number as the tables have it: `1,234`, `5.6%` or `7e+03`."""
    return float(text.rstrip("%").replace(",", ""))


def _text(in_flight: int | None) -> str | None:
    return None if in_flight is None else str(in_flight)


def share(name: str, in_flight: int = 32, column: str = "of limit") -> Read:
    """Reads a contender's value at a number of requests in flight."""
    return lambda lines: cell(lines, name, column, in_flight)


def times(name: str, other: str, in_flight: int = 32, column: str = "requests/s") -> Read:
    """Reads the ratio of two contenders' values."""
    return lambda lines: share(name, in_flight, column)(lines) / share(other, in_flight, column)(lines)


def _beyond_limit_ms(lines: Sequence[Line]) -> float:
    return cell(lines, LOCAL, "p50 ms", 1) - cell(lines, LIMIT, "p50 ms", 1)


def _extreme(
    choose: Callable[[list[float]], float], column: str, keep: Callable[[Line], bool] = lambda _: True
) -> Read:
    def read(lines: Sequence[Line]) -> float:
        values = [number(line[column]) for line in lines if line.get(column) and keep(line)]
        if not values:
            raise LookupError(column)
        return choose(values)

    return read


def _bounded_server(lines: Sequence[Line]) -> float:
    """The fraction of offline; 0 if the bound on the latency is not kept."""
    fraction = cell(lines, "HTTP, server", "of offline")
    kept = next(line for line in lines if line.get("") == "HTTP, server")["p99 within the bound"] == "yes"
    return fraction if kept else 0.0


def _is_int8(line: Line) -> bool:
    return line["net"] == "resnet18" and line["precision"] == "int8"


TARGETS = (
    Target("LeNet-5, images over HTTP, 32 in flight: fraction of the limit", 2.2, "lenet5_images", share(LOCAL)),
    Target("… ratio to Triton, Python backend, two instances", 2.8, "lenet5_images", times(LOCAL, TRITON.row)),
    Target("… ratio to Ray Serve, tuned", 1, "lenet5_images", times(LOCAL, RAY_TUNED.row)),
    Target("… ratio to LitServe, tuned", 1, "lenet5_images", times(LOCAL, LITSERVE.row)),
    Target("… ratio to BentoML, tuned", 1, "lenet5_images", times(LOCAL, BENTOML.row)),
    Target("… one in flight: p50 above the limit's, ms", 0, "lenet5_images", _beyond_limit_ms, at_most=True),
    Target("… dedicated, 32 in flight: fraction of the limit", 0.45, "lenet5_images", share(DEDICATED)),
    Target("… dedicated, one in flight: p50, ms", 3, "lenet5_images", share(DEDICATED, 1, "p50 ms"), at_most=True),
    Target("LeNet-5, tensors over HTTP, 32 in flight: fraction of the limit", 1.25, "lenet5_tensors", share(LOCAL)),
    Target("… fraction of the raw limit", 0.60, "lenet5_tensors", share(LOCAL, column="of raw limit")),
    Target("… ratio to Triton, Python backend, two instances", 1.8, "lenet5_tensors", times(LOCAL, TRITON.row)),
    Target("… CPU time per request, of the limit's", 0.74, "lenet5_tensors", times(
        LOCAL, LIMIT, column=CPU_COLUMN), at_most=True),
    Target("… one in flight: p50 above the limit's, ms", 0, "lenet5_tensors", _beyond_limit_ms, at_most=True),
    Target("LeNet-5, images over gRPC, 32 in flight: fraction of the limit", 2.1, "lenet5_grpc", share("Convoy, image")),
    Target("… ratio to Triton, Python backend, two instances", 1, "lenet5_grpc", times(
        "Convoy, image", f"{TRITON.row}, image")),
    Target("LeNet-5, tensors over gRPC, 32 in flight: fraction of the limit", 0.95, "lenet5_grpc", share("Convoy, tensor")),
    Target("… ratio to Triton, Python backend, two instances", 1.3, "lenet5_grpc", times(
        "Convoy, tensor", f"{TRITON.row}, tensor")),
    Target("ResNet-18, photos, 16 in flight: fraction of the limit", 1.10, "resnet18_images", share(LOCAL, 16)),
    Target("… fraction of Convoy's own tight loop", 0.90, "resnet18_images", times(LOCAL, "tight loop", 16)),
    Target("MLPerf offline: samples/s over HTTP / in process", 0.95, "mlperf", lambda lines: cell(
        lines, "HTTP, offline", "of in process")),
    Target("MLPerf server over HTTP within p99 of 20 runs: samples/s / offline", 0.87, "mlperf", _bounded_server),
    Target("ResNet-18: int8 / fp32, best engine", 3, "precision", _extreme(max, "of fp32", _is_int8)),
    Target("SqueezeNet and CIFAR nets: lowest fraction of the tight loop", 0.9, "precision", _extreme(
        min, "of the tight loop", lambda line: line["net"] != "resnet18")),
    Target("Twice the capacity offered: goodput / capacity", 0.9, "overload", lambda lines: cell(
        lines, "twice", "of capacity")),
    Target("Five times the capacity offered: goodput / capacity", 0.9, "overload", lambda lines: cell(
        lines, "five times", "of capacity")),
    Target("… time to a refusal, p99, ms, worse of both", 5, "overload", _extreme(
        max, "p99 of refusals, ms", lambda line: line["offered"] in ("twice", "five times")), at_most=True),
    Target("… the same, with the threads of engine and decoding on one core", 5, "overload", lambda lines: cell(
        lines, "five times, threads on one core", "p99 of refusals, ms"), at_most=True),
    *(
        Target(f"Overload by net, picture and deadline: lowest goodput at {times} the capacity", 0.9, "overload_matrix", _extreme(
            min, times)) for times in ("1.5 times", "2 times", "5 times")
    ),
    Target("… lowest goodput at half the capacity, 1 s later", 0.99, "overload_matrix", _extreme(min, "half, 1 s later")),
    Target("Rate with metrics / rate without", 0.97, "metrics_cost", _extreme(min, "rate with metrics / rate without")),
    Target("Seconds from `convoy up` to ready", 12, "start_up", lambda lines: cell(
        lines, "seconds to ready", "median"), at_most=True),
    Target("Busy cores when idle", 0.15, "start_up", lambda lines: cell(lines, "idle cores", "median"), at_most=True),
    Target("Cold start of a model from a warm store, s, worst net", 2, "cold_start", _extreme(
        max, "added s per engine"), at_most=True),
    Target("Memory growth, %, worse of both", 5, "memory", _extreme(max, "growth"), at_most=True),
)  # fmt: skip
