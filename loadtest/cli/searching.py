"""Commands that take several runs, or a long one, against one server."""

from __future__ import annotations

from typing import Any

import click

from convoy.errors import ConfigError
from loadtest.cli.common import console, end, measurer, write_outputs
from loadtest.cli.options import DURATION, MEASURE, OUTPUT, PAYLOAD, RATE, SHAPE, TARGET, make_plan, with_options
from loadtest.cli.single import REQUIRE
from loadtest.report.results import (
    SWEEP_HEADS,
    limit_sections,
    rich_table,
    soak_sections,
    spike_sections,
    spike_sentence,
    sweep_row,
    sweep_sections,
)
from loadtest.report.terminal import milliseconds, print_report
from loadtest.search.limits import Goal, Probe, find_limit
from loadtest.search.sweeps import measure_spike, parse_series, read_soak, sweep_concurrency, sweep_rates


@click.command()
@click.argument("url")
@click.option(
    "--p99", type=DURATION, help="The target: 99 % of all requests, failures counted as late, within this time."
)
@click.option("--p95", type=DURATION, help="The same for 95 %.")
@click.option("--p50", type=DURATION, help="The same for half.")
@click.option("--start", type=float, default=10.0, show_default=True, help="Rate to begin with.")
@click.option("--max-rate", type=float, default=100_000.0, help="Rate not to exceed.")
@click.option(
    "--probe", type=DURATION, default="5s", show_default=True, help="Time per probe, at least what the quantile needs."
)
@click.option("--confirm", type=DURATION, default="20s", show_default=True, help="Time of the confirming run.")
@click.option(
    "--tolerance", type=float, default=0.05, show_default=True, help="Relative width at which the search ends."
)
@with_options(TARGET, RATE[1:], PAYLOAD, MEASURE, OUTPUT)
def limit(url: str, driver: str, **given: Any) -> None:
    """How much can it take? The highest rate that keeps a latency target: bracketing, then a longer run to confirm.

    \b
    python -m loadtest limit http://127.0.0.1:8000 -m resnet20-cifar10 --p99 50ms --html limit.html
    """
    targets = {name: given[name] for name in ("p99", "p95", "p50") if given[name] is not None}
    if len(targets) != 1:
        raise ConfigError("say one target: --p99 50ms, --p95 …, or --p50 …")
    _needs_own_driver(driver)
    ((quantile, target),) = targets.items()
    goal = Goal(
        quantile, target * 1000, given["start"], given["max_rate"], given["probe"], given["confirm"], given["tolerance"]
    )
    plan = make_plan(url, "limit", {**given, "rate": given["start"]})
    out = console()

    def tell(probe: Probe) -> None:
        value = "∞" if probe.value_ms is None else milliseconds(probe.value_ms)
        kind = "confirming " if probe.confirming else ""
        out.print(f"{kind}{probe.rate:8.1f}/s  {quantile} {value:>6} ms  {probe.outcome} {probe.reason}")

    found = find_limit(plan, goal, measurer(driver), tell)
    out.print(f"[bold]{found.explanation}")
    reports = [probe.report for probe in found.probes]
    write_outputs(given, "loadtest: limit", found, reports, limit_sections(found))
    if found.rate is None:
        end([reports[-1]])
        raise SystemExit(4)


@click.command()
@click.argument("url")
@click.option("--rates", metavar="SERIES", help="Open loop: 10,20,50 or 10:100:10 or 10:1000:x2.")
@click.option("--concurrency", metavar="SERIES", help="Closed loop: 1,2,4 or 1:32:x2.")
@with_options(TARGET, RATE[1:], PAYLOAD, MEASURE, OUTPUT)
def sweep(url: str, rates: str | None, concurrency: str | None, driver: str, **given: Any) -> None:
    """Where does latency begin to climb? The latency-against-rate curve.

    \b
    python -m loadtest sweep http://127.0.0.1:8000 -m resnet20-cifar10 --rates 50:400:50 --csv sweep.csv --html sweep.html
    python -m loadtest sweep http://127.0.0.1:8000 -m lenet5-mnist --concurrency 1:64:x2 --driver wrk
    """
    if (rates is None) == (concurrency is None):
        raise ConfigError("say --rates or --concurrency")
    measure = measurer(driver)
    if rates is not None:
        series = parse_series(rates)
        reports = sweep_rates(make_plan(url, "sweep", {**given, "rate": series[0]}), series, measure)
    else:
        levels = tuple(int(level) for level in parse_series(concurrency or ""))
        reports = sweep_concurrency(make_plan(url, "sweep", {**given, "concurrency": levels[0]}), levels, measure)
    console().print(rich_table(SWEEP_HEADS, [sweep_row(report) for report in reports]))
    for note in dict.fromkeys(note for report in reports for note in (*report.verdict.reasons, *report.verdict.notes)):
        console().print(f"[yellow]note: {note}")
    write_outputs(given, "loadtest: sweep", {"reports": reports}, reports, sweep_sections(reports))
    end(reports)


@click.command()
@click.argument("url")
@click.option("--times", type=float, default=5.0, show_default=True, help="How much more in the spike.")
@click.option("--before", type=DURATION, default="10s", show_default=True)
@click.option("--spike", "spike_time", type=DURATION, default="5s", show_default=True)
@click.option("--after", type=DURATION, default="20s", show_default=True)
@with_options(TARGET, RATE, PAYLOAD, MEASURE, REQUIRE, OUTPUT)
def spike(url: str, times: float, before: float, spike_time: float, after: float, **given: Any) -> None:
    """How long does it take to recover from a spike?

    \b
    python -m loadtest spike http://127.0.0.1:8000 -m resnet20-cifar10 --rate 100 --times 5 --html spike.html
    """
    _needs_own_driver(given["driver"])
    found = measure_spike(make_plan(url, "spike", given), times, before, spike_time, after, measurer("loadtest"))
    print_report(console(), found.report)
    console().print(f"[bold]{spike_sentence(found)}")
    write_outputs(given, "loadtest: spike", found, [found.report], spike_sections(found))
    end([found.report], given["required"])


@click.command()
@click.argument("url")
@with_options(TARGET, RATE, SHAPE, PAYLOAD, MEASURE, REQUIRE, OUTPUT)
def soak(url: str, driver: str, **given: Any) -> None:
    """Does it stay as it is for hours? A long run and what drifted in it. Ctrl-C ends it early with a report.

    \b
    python -m loadtest soak http://127.0.0.1:8000 -m resnet20-cifar10 --rate 60 --duration 2h \\
      --metrics http://127.0.0.1:8002/metrics --html soak.html
    """
    found = read_soak(measurer(driver)(make_plan(url, "soak", given)))
    print_report(console(), found.report)
    console().print("[bold]" + ("; ".join(found.findings) or "nothing drifted"))
    write_outputs(given, "loadtest: soak", found, [found.report], soak_sections(found))
    end([found.report], given["required"])


def _needs_own_driver(driver: str) -> None:
    if driver == "wrk":
        raise ConfigError("this needs open loop, which wrk does not have; leave --driver out")
