"""The command that measures the generator itself."""

from __future__ import annotations

from pathlib import Path

import click

from loadtest.cli.common import console
from loadtest.cli.options import DURATION


@click.command()
@click.option("--duration", type=DURATION, default="4s", show_default=True, help="Time per measurement.")
@click.option(
    "--against", multiple=True, type=click.Choice(["wrk", "hey"]), help="Also compare with these in closed loop."
)
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures between the markers of this file.",
)
def selfcheck(duration: float, against: tuple[str, ...], markdown: Path | None) -> None:
    """Can these numbers be trusted? Measures what a request costs this generator, its latencies against
    queueing theory, and its agreement with wrk and hey.

    \b
    python -m loadtest selfcheck
    python -m loadtest selfcheck --against wrk --against hey
    """
    from loadtest.selfcheck.figures import (
        as_markdown,
        measure_agreement,
        measure_costs,
        measure_queue,
        write_between_markers,
    )

    figures = as_markdown(measure_costs(duration), measure_queue(3 * duration), measure_agreement(duration, against))
    console().print(figures, markup=False)
    if markdown is not None:
        write_between_markers(markdown, figures)
