"""Commands that take several runs or one long run: `limit`, `sweep`, `spike` and `soak`."""

from __future__ import annotations

from typing import Any

import click

from convoy.errors import ConfigError
from loadtest.cli.common import console, end, measurer, write_outputs
from loadtest.cli.options import (
    ARRIVALS,
    DURATION,
    MEASURE,
    OUTPUT,
    PAYLOAD,
    RATE,
    SHAPE,
    TARGET,
    make_plan,
    with_options,
)
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
    "--p99",
    type=DURATION,
    help="The target: 99 % of all requests are answered within this time; failures count as late.",
)
@click.option("--p95", type=DURATION, help="The same for 95 %.")
@click.option("--p50", type=DURATION, help="The same for 50 %.")
@click.option("--start", type=float, default=10.0, show_default=True, help="Rate of the first probe.")
@click.option("--max-rate", type=float, default=100_000.0, help="Highest rate to probe.")
@click.option(
    "--probe", type=DURATION, default="5s", show_default=True, help="Time per probe; longer if the quantile needs it."
)
@click.option("--confirm", type=DURATION, default="20s", show_default=True, help="Time of the confirming run.")
@click.option(
    "--tolerance", type=float, default=0.05, show_default=True, help="Relative width at which the search ends."
)
@with_options(TARGET, ARRIVALS, PAYLOAD, MEASURE, OUTPUT)
def limit(url: str, driver: str, **options: Any) -> None:
    """How much load can it take? Finds the highest rate that keeps a latency target, and confirms it with a longer run.

    \b
    python -m loadtest limit http://127.0.0.1:8000 -m resnet20-cifar10 --p99 50ms --html limit.html
    """
    targets = {name: options[name] for name in ("p99", "p95", "p50") if options[name] is not None}
    if len(targets) != 1:
        raise ConfigError("choose one target: --p99 50ms, --p95 … or --p50 …")
    _needs_own_driver(driver)
    ((quantile, target),) = targets.items()
    goal = Goal(
        quantile,
        target * 1000,
        options["start"],
        options["max_rate"],
        options["probe"],
        options["confirm"],
        options["tolerance"],
    )
    plan = make_plan(url, "limit", {**options, "rate": options["start"]})
    out = console()

    def print_probe(probe: Probe) -> None:
        value = "∞" if probe.value_ms is None else milliseconds(probe.value_ms)
        kind = "confirming " if probe.confirming else ""
        out.print(f"{kind}{probe.rate:8.1f}/s  {quantile} {value:>6} ms  {probe.outcome} {probe.reason}")

    found = find_limit(plan, goal, measurer(driver), print_probe)
    out.print(f"[bold]{found.explanation}")
    reports = [probe.report for probe in found.probes]
    write_outputs(options, "loadtest: limit", found, reports, limit_sections(found))
    if found.rate is None:
        end([reports[-1]])
        raise SystemExit(4)


@click.command()
@click.argument("url")
@click.option("--rates", metavar="SERIES", help="Open loop: 10,20,50 or 10:100:10 or 10:1000:x2.")
@click.option("--concurrency", metavar="SERIES", help="Closed loop: 1,2,4 or 1:32:x2.")
@with_options(TARGET, ARRIVALS, PAYLOAD, MEASURE, OUTPUT)
def sweep(url: str, rates: str | None, concurrency: str | None, driver: str, **options: Any) -> None:
    """Where does latency begin to rise? Measures latency against rate.

    \b
    python -m loadtest sweep http://127.0.0.1:8000 -m resnet20-cifar10 --rates 50:400:50 --csv sweep.csv --html sweep.html
    python -m loadtest sweep http://127.0.0.1:8000 -m lenet5-mnist --concurrency 1:64:x2 --driver wrk
    """
    if (rates is None) == (concurrency is None):
        raise ConfigError("choose one: --rates or --concurrency")
    measure = measurer(driver)
    if rates is not None:
        series = parse_series(rates)
        reports = sweep_rates(make_plan(url, "sweep", {**options, "rate": series[0]}), series, measure)
    else:
        levels = tuple(int(level) for level in parse_series(concurrency or ""))
        reports = sweep_concurrency(make_plan(url, "sweep", {**options, "concurrency": levels[0]}), levels, measure)
    console().print(rich_table(SWEEP_HEADS, [sweep_row(report) for report in reports]))
    for note in dict.fromkeys(note for report in reports for note in (*report.verdict.reasons, *report.verdict.notes)):
        console().print(f"[yellow]note: {note}")
    write_outputs(options, "loadtest: sweep", {"reports": reports}, reports, sweep_sections(reports))
    end(reports)


@click.command()
@click.argument("url")
@click.option("--times", type=float, default=5.0, show_default=True, help="Factor on the rate during the spike.")
@click.option("--before", type=DURATION, default="10s", show_default=True, help="Time before the spike.")
@click.option("--spike", "spike_time", type=DURATION, default="5s", show_default=True, help="Length of the spike.")
@click.option("--after", type=DURATION, default="20s", show_default=True, help="Time after the spike.")
@with_options(TARGET, RATE, PAYLOAD, MEASURE, REQUIRE, OUTPUT)
def spike(url: str, times: float, before: float, spike_time: float, after: float, **options: Any) -> None:
    """How long does it take to recover from a spike?

    \b
    python -m loadtest spike http://127.0.0.1:8000 -m resnet20-cifar10 --rate 100 --times 5 --html spike.html
    """
    _needs_own_driver(options["driver"])
    found = measure_spike(make_plan(url, "spike", options), times, before, spike_time, after, measurer("loadtest"))
    print_report(console(), found.report)
    console().print(f"[bold]{spike_sentence(found)}")
    write_outputs(options, "loadtest: spike", found, [found.report], spike_sections(found))
    end([found.report], options["required"])


@click.command()
@click.argument("url")
@with_options(TARGET, RATE, SHAPE, PAYLOAD, MEASURE, REQUIRE, OUTPUT)
def soak(url: str, driver: str, **options: Any) -> None:
    """Does it stay stable for hours? Reports what drifts in a long run. Ctrl-C ends it early with a report.

    \b
    python -m loadtest soak http://127.0.0.1:8000 -m resnet20-cifar10 --rate 60 --duration 2h \\
      --metrics http://127.0.0.1:8002/metrics --html soak.html
    """
    found = read_soak(measurer(driver)(make_plan(url, "soak", options)))
    print_report(console(), found.report)
    console().print("[bold]" + ("; ".join(found.findings) or "nothing drifted"))
    write_outputs(options, "loadtest: soak", found, [found.report], soak_sections(found))
    end([found.report], options["required"])


def _needs_own_driver(driver: str) -> None:
    if driver == "wrk":
        raise ConfigError("this command needs open loop, which wrk does not support; omit --driver")
