"""`loadtest compare`: two servers, configurations or commits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from convoy.errors import ConfigError
from loadtest.cli.common import console, end, measurer, write_outputs
from loadtest.cli.options import MEASURE, OUTPUT, PAYLOAD, RATE, SHAPE, TARGET, make_plan, with_options
from loadtest.report.results import SWEEP_HEADS, comparison_rows, comparison_sections, rich_table, sweep_row
from loadtest.search.compare import Side
from loadtest.search.compare import compare as compare_sides
from loadtest.search.servers import commit_folder, ready_url, running

Up = Callable[[], AbstractContextManager[object]]


@click.command()
@click.argument("a_url", metavar="URL_A")
@click.argument("b_url", metavar="[URL_B]", required=False)
@click.option("--rounds", type=int, default=5, show_default=True, help="Slices of each side; an interval needs three.")
@click.option("--a-start", help="Command that serves A at URL_A; runs only during A's slices.")
@click.option("--b-start", help="The same for B.")
@click.option("--start", help="Command for both sides, for example with commits.")
@click.option("--a-commit", help="Run A's command in a work tree of this commit.")
@click.option("--b-commit", help="The same for B.")
@click.option("--ready", help="URL that answers 200 when a started server is ready. Default: URL/v2/health/ready.")
@with_options(TARGET, RATE, SHAPE, PAYLOAD, MEASURE, OUTPUT)
def compare(a_url: str, b_url: str | None, rounds: int, driver: str, **options: Any) -> None:
    """Is B faster than A? Measures alternating slices (A B A B …) and prints the ratio with its 95 % interval.

    \b
    Two running servers:
      python -m loadtest compare http://127.0.0.1:8000 http://127.0.0.1:9000 -m resnet20-cifar10 --rate 100
    Two configurations, started for each slice:
      python -m loadtest compare http://127.0.0.1:8000 -m resnet20-cifar10 --concurrency 16 \\
        --a-start "convoy up -c one.yaml" --b-start "convoy up -c two.yaml"
    Two commits:
      python -m loadtest compare http://127.0.0.1:8000 -m resnet20-cifar10 --concurrency 16 \\
        --a-commit main --b-commit HEAD --start "convoy up"
    """
    starts = {side: options[f"{side}_start"] or options["start"] for side in "ab"}
    if b_url is None and starts["a"] is None:
        raise ConfigError(
            "missing URL_B, or commands to start both sides (--a-start/--b-start, or --start with --a-commit/--b-commit)"
        )
    urls = {"a": a_url, "b": b_url or a_url}
    with contextlib.ExitStack() as stack:
        sides = []
        for letter in "ab":
            plan = make_plan(urls[letter], letter.upper(), options)
            commit = options[f"{letter}_commit"]
            folder = stack.enter_context(commit_folder(Path.cwd(), commit)) if commit else None
            up = _up(starts[letter], options["ready"] or ready_url(plan.target), folder)
            sides.append(Side(commit or options[f"{letter}_start"] or urls[letter], plan, up))
        found = compare_sides(sides[0], sides[1], rounds, measurer(driver))
    out = console()
    reports = [report for pair in zip(found.first, found.second, strict=True) for report in pair]
    out.print(f"A is {found.names[0]}\nB is {found.names[1]}", markup=False)
    out.print(rich_table(SWEEP_HEADS, [sweep_row(report) for report in reports]))
    out.print(rich_table(("B / A", "ratio", "95 % interval", "finding"), comparison_rows(found)))
    if found.accuracy != (None, None):
        out.print(
            "accuracy: "
            + ", ".join(f"{side} {value:.2%}" for side, value in zip("AB", found.accuracy, strict=True) if value)
        )
    write_outputs(options, "loadtest: comparison", found, reports, comparison_sections(found))
    end(reports)


def _up(command: str | None, ready: str, folder: Path | None) -> Up:
    if command is None:
        return _nothing
    return lambda: running(command, ready, folder)


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield
