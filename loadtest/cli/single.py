"""Commands with one measured run: `run` and `scenario`; and `scenarios`, which lists them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from convoy.errors import ConfigError
from loadtest.cli.common import Requirement, console, end, measurer, parse_requirement, write_outputs
from loadtest.cli.options import DURATION, MEASURE, OUTPUT, PAYLOAD, RATE, SHAPE, TARGET, make_plan, with_options
from loadtest.plan import Load, Plan
from loadtest.report.page import report_sections
from loadtest.report.terminal import print_report
from loadtest.report.values import Report
from loadtest.scenario import Scenario, known_scenarios, load_scenario, scale
from loadtest.search.limits import Measure

PROBE_S = 5.0
REQUIRE = (
    click.option("--require", "required", multiple=True, metavar="'p99<=50'",
                 callback=lambda context, option, texts: tuple(parse_requirement(text) for text in texts),
                 help="Exit with 4 unless met; repeatable: p50 … p99.9 (ms), failed (share), throughput, goodput, accuracy."),
)  # fmt: skip


@click.command()
@click.argument("url")
@with_options(TARGET, RATE, SHAPE, PAYLOAD, MEASURE, REQUIRE, OUTPUT)
def run(url: str, required: tuple[Requirement, ...], driver: str, **options: Any) -> None:
    """What do users see at this load? Measures latency, throughput, failures and accuracy in one run.

    \b
    python -m loadtest run http://127.0.0.1:8000 -m resnet20-cifar10 --rate 100 --duration 30s --html run.html
    python -m loadtest run grpc://127.0.0.1:8001 -m lenet5-mnist --rate 200 --arrivals gamma --side 28 --gray
    python -m loadtest run http://127.0.0.1:8000 -m resnet20-cifar10-tensor --tensor --concurrency 8
    python -m loadtest run http://127.0.0.1:8080 -m resnet-18 --protocol raw --path /predictions/resnet-18 --rate 20
    """
    finish(measurer(driver)(make_plan(url, "run", options)), options, required)


@click.command()
@click.argument("name")
@click.option("--url", help="URL of the server. Default: the scenario's, or http://127.0.0.1:8000.")
@click.option("-m", "--model", help="Model that replaces the scenario's.")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of images that replaces the scenario's payloads.",
)
@click.option("--rate", type=float, help="Requests per second, instead of the scenario's rate.")
@click.option("--duration", type=DURATION, help="Measured time, instead of the scenario's.")
@click.option("--workers", type=int, help="Processes of the generator.")
@with_options(REQUIRE, OUTPUT)
def scenario(name: str, url: str | None, required: tuple[Requirement, ...], **options: Any) -> None:
    """How does it handle bursts, overload, big photos, …? Runs a scenario by name or from a file.

    \b
    python -m loadtest scenarios                     list the scenarios
    python -m loadtest scenario overload-x2 --url http://127.0.0.1:8000 --html overload.html
    python -m loadtest scenario my-traffic.yaml

    Rates such as 2x are multiples of the capacity, which is first measured in closed loop.
    """
    found = load_scenario(name, url)
    plan = _changed(found, options)
    measure = measurer("loadtest")
    if found.of_capacity and not options["rate"]:
        plan = scale(plan, measure_capacity(plan, found.probe_concurrency, measure))
    finish(measure(plan), options, required)


def _changed(found: Scenario, options: dict[str, Any]) -> Plan:
    """The scenario's plan with the changes of the command line."""
    plan = found.plan
    traffic = plan.traffic
    if options["model"]:
        traffic = tuple(replace(entry, model=options["model"], name=entry.name) for entry in traffic)
    if options["images"]:
        traffic = tuple(
            replace(entry, payload=replace(entry.payload, kind="folder", folder=options["images"])) for entry in traffic
        )
    plan = replace(
        plan,
        traffic=traffic,
        duration_s=options["duration"] or plan.duration_s,
        workers=options["workers"] or plan.workers,
    )
    if options["rate"] and plan.load.steps:
        steps = tuple(replace(step, rate=options["rate"]) for step in plan.load.steps)
        plan = replace(plan, load=replace(plan.load, steps=steps))
    return plan


def measure_capacity(plan: Plan, concurrency: int, measure: Measure) -> float:
    """Requests/s that the server answers in closed loop for the plan's traffic, without deadlines and slow uploads."""
    traffic = tuple(replace(entry, deadline_ms=None, upload_bytes_per_s=None) for entry in plan.traffic)
    seconds = min(PROBE_S, plan.duration_s)
    probe = replace(
        plan, traffic=traffic, load=Load(concurrency=concurrency), duration_s=seconds, warmup_s=1.0, feedback=None
    )
    report = measure(replace(probe, name="capacity"))
    if report.stopped:
        raise ConfigError("stopped during the measurement of the capacity")
    console().print(f"capacity: {report.throughput_per_s:.1f}/s with {concurrency} in flight over {seconds:g} s")
    return max(report.throughput_per_s, 0.1)


@click.command()
def scenarios() -> None:
    """Which scenarios are there?"""
    for name in known_scenarios():
        click.secho(name, bold=True)
        click.echo(f"    {load_scenario(name).about}")


def finish(report: Report, options: dict[str, Any], required: tuple[Requirement, ...]) -> None:
    """Prints one report, writes its files and exits with its code."""
    print_report(console(), report)
    write_outputs(options, f"loadtest: {report.name}", report, [report], report_sections(report))
    end([report], required)
