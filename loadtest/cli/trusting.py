"""`loadtest selfcheck`: measures the generator itself."""

from __future__ import annotations

from pathlib import Path

import click

from convoy.errors import ConfigError
from loadtest.cli.common import console
from loadtest.cli.options import DURATION, OUTPUT_FILE
from loadtest.plan import Payload
from loadtest.selfcheck.figures import (
    Subject,
    as_markdown,
    measure_agreement,
    measure_costs,
    measure_queue,
    simulated_engine,
    write_between_markers,
)


@click.command()
@click.option("--duration", type=DURATION, default="1500ms", show_default=True, help="Time per round of a comparison.")
@click.option("--against", multiple=True, type=click.Choice(["wrk", "hey"]), help="Compare with these in closed loop.")
@click.option("--on", "url", metavar="URL", help="Compare also on this server, not only on a simulated engine.")
@click.option("-m", "--model", help="With --on: a model of this server, preferably limited by its engine.")
@click.option(
    "--side",
    type=int,
    default=500,
    show_default=True,
    help="With --on: long side of the JPEG photo that all tools send.",
)
@click.option("--concurrency", type=int, default=4, show_default=True, help="With --on: requests in flight.")
@click.option("--markdown", type=OUTPUT_FILE, help="File in which to replace the figures between the markers.")
def selfcheck(
    duration: float, against: tuple[str, ...], url: str | None, model: str | None, side: int, concurrency: int,
    markdown: Path | None,
) -> None:  # fmt: skip
    """Can these numbers be trusted? Measures the CPU cost of a request in this generator, and compares its
    results with queueing theory, wrk and hey.

    \b
    python -m loadtest selfcheck
    python -m loadtest selfcheck --against wrk --against hey --on http://127.0.0.1:8000 -m squeezenet1_1-imagenet
    """
    if (url is None) != (model is None) or (url and not against):
        raise ConfigError("--on URL, --model and --against go together")
    agreements = []
    if against:
        with simulated_engine() as subject:
            agreements += measure_agreement(subject, duration, against)
    if url and model:
        payload = Payload(side=side, count=1)
        agreements += measure_agreement(
            Subject(f"{model}, {side} px", url, model, payload, concurrency), duration, against
        )
    figures = as_markdown(measure_costs(2 * duration), measure_queue(8 * duration), agreements)
    console().print(figures, markup=False)
    if markdown is not None:
        write_between_markers(markdown, figures)
