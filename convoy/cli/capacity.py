"""`convoy capacity`: the gateways and hosts that a load needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.explain import live_plan
from convoy.cli.options import json_option, server_option
from convoy.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from serve.batching.latency_curve import LatencyCurve
    from serve.planning.capacity import Cost

TIMES = (1, 10, 100)


@click.command()
@click.argument("model")
@click.option(
    "--rate", required=True, type=click.FloatRange(min=0, min_open=True), help="Images per second that must be served."
)
@click.option(
    "--p99",
    required=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Largest 99th percentile of latency, in milliseconds.",
)
@click.option(
    "--decode-ms", required=True, type=click.FloatRange(min=0), help="Milliseconds of the decode stage per image."
)
@click.option(
    "--loop-ms", required=True, type=click.FloatRange(min=0), help="Milliseconds of receive, post and send per image."
)
@click.option(
    "--hop-ms",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Milliseconds to send a batch to a host and back.",
)
@server_option
@json_option
def capacity(
    model: str, rate: float, p99: float, decode_ms: float, loop_ms: float, hop_ms: float, url: str, as_json: bool
) -> None:
    """Compute how many gateways and hosts MODEL needs at a rate and a p99, and at 10 and 100 times that rate.

    The request path is simulated. The latency curve comes from a running server (--url). Take the times of the stages from the
    timings_ms of its answers or from its metrics.

    \b
    convoy capacity squeezenet1_1-imagenet --rate 200 --p99 200 --decode-ms 9 --loop-ms 0.3
    """
    from serve.planning.capacity import simulate, smallest

    plan = live_plan(url)
    cost = cost_of(plan, model, loop_ms / 1e3, decode_ms / 1e3, (hop_ms / 1e3,))
    rows: list[dict[str, Any]] = []
    for times in TIMES:
        try:
            fleet = smallest(cost, plan["threads"]["decode"], rate * times, p99 / 1e3)
        except ValueError as error:
            raise ConfigError(f"{model} at {rate * times:g} images/s: {error}") from error
        outcome = simulate(cost, fleet, rate * times)
        rows.append(
            {
                "rate": rate * times,
                "gateways": fleet.gateways,
                "hosts": fleet.hosts,
                "p50_ms": outcome.p50 * 1e3,
                "p99_ms": outcome.p99 * 1e3,
                "batch": outcome.batch,
                "busiest": outcome.busiest,
            }
        )
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table("images/s", "gateways", "hosts", "p50 ms", "p99 ms", "batch", "breaks first", box=None)
    for row in rows:
        figures = (f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}", f"{row['batch']:.1f}")
        table.add_row(f"{row['rate']:g}", str(row["gateways"]), str(row["hosts"]), *figures, row["busiest"])
    Console().print(table)


def cost_of(plan: dict[str, Any], model: str, loop: float, decode: float, hops: tuple[float, ...]) -> Cost:
    """Costs of a request in seconds, with the latency curve of a server's plan. Raises NotFound or ConfigError."""
    from serve.planning.capacity import Cost

    curve, limit = curve_of(plan, model)
    return Cost(loop, decode, hops, curve, limit)


def curve_of(plan: dict[str, Any], model: str) -> tuple[LatencyCurve, int]:
    """The latency curve of a model and its batch limit. Raises NotFound or ConfigError."""
    from serve.batching.latency_curve import LatencyCurve

    known = {entry["name"]: entry for entry in plan["models"]}
    if model not in known:
        raise NotFound(f"model {model!r} is not served; served models: {', '.join(known)}")
    if not known[model]["curve_ms"]:
        raise ConfigError(f"{model} has no latency curve, because it was never loaded; send it a request first")
    points = {int(size): ms / 1e3 for size, ms in known[model]["curve_ms"].items()}
    curve = LatencyCurve(tuple(sorted(points)), tuple(points[size] for size in sorted(points)))
    return curve, int(known[model]["batch_limit"])
