"""Commands that measure once."""

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
                 help="Exit with 4 unless met: p50 … p99.9 (ms), failed (share), throughput, goodput, accuracy."),
)  # fmt: skip


@click.command()
@click.argument("url")
@with_options(TARGET, RATE, SHAPE, PAYLOAD, MEASURE, REQUIRE, OUTPUT)
def run(url: str, required: tuple[Requirement, ...], driver: str, **given: Any) -> None:
    """What do users see at this load? One run: latency, throughput, failures, accuracy.

    \b
    python -m loadtest run http://127.0.0.1:8000 -m resnet20-cifar10 --rate 100 --duration 30s --html run.html
    python -m loadtest run grpc://127.0.0.1:8001 -m lenet5-mnist --rate 200 --arrivals gamma --side 28 --gray
    python -m loadtest run http://127.0.0.1:8000 -m resnet20-cifar10-tensor --tensor --concurrency 8
    python -m loadtest run http://127.0.0.1:8080 -m resnet-18 --protocol raw --path /predictions/resnet-18 --rate 20
    """
    finish(measurer(driver)(make_plan(url, "run", given)), given, required)


@click.command()
@click.argument("name")
@click.option("--url", help="The server; else the scenario's own, else http://127.0.0.1:8000.")
@click.option("-m", "--model", help="Model instead of the scenario's.")
@click.option(
    "--images", type=click.Path(exists=True, file_okay=False), help="Folder instead of the scenario's images."
)
@click.option("--rate", type=float, help="Requests per second instead of the scenario's rate.")
@click.option("--duration", type=DURATION, help="Measured time instead of the scenario's.")
@click.option("--workers", type=int, help="Processes of the generator.")
@with_options(REQUIRE, OUTPUT)
def scenario(name: str, url: str | None, required: tuple[Requirement, ...], **given: Any) -> None:
    """How does it cope with bursts, overload, big photos, …? Runs a scenario by name or from a file.

    \b
    python -m loadtest scenarios                     what there is
    python -m loadtest scenario overload-x2 --url http://127.0.0.1:8000 --html overload.html
    python -m loadtest scenario my-traffic.yaml

    Rates such as 2x are multiples of the capacity, which is measured first in closed loop.
    """
    found = load_scenario(name, url)
    plan = _changed(found, given)
    measure = measurer("loadtest")
    if found.of_capacity and not given["rate"]:
        plan = scale(plan, measure_capacity(plan, found.probe_concurrency, measure))
    finish(measure(plan), given, required)


def _changed(found: Scenario, given: dict[str, Any]) -> Plan:
    """The scenario's plan with what the command line says otherwise."""
    plan = found.plan
    traffic = plan.traffic
    if given["model"]:
        traffic = tuple(replace(one, model=given["model"], name=one.name) for one in traffic)
    if given["images"]:
        traffic = tuple(
            replace(one, payload=replace(one.payload, kind="folder", folder=given["images"])) for one in traffic
        )
    plan = replace(
        plan, traffic=traffic, duration_s=given["duration"] or plan.duration_s, workers=given["workers"] or plan.workers
    )
    if given["rate"] and plan.load.steps:
        steps = tuple(replace(step, rate=given["rate"]) for step in plan.load.steps)
        plan = replace(plan, load=replace(plan.load, steps=steps))
    return plan


def measure_capacity(plan: Plan, concurrency: int, measure: Measure) -> float:
    """Requests/s that a server answers in closed loop to the plan's traffic, without deadlines and thin lines."""
    traffic = tuple(replace(one, deadline_ms=None, upload_bytes_per_s=None) for one in plan.traffic)
    seconds = min(PROBE_S, plan.duration_s)
    probe = replace(
        plan, traffic=traffic, load=Load(concurrency=concurrency), duration_s=seconds, warmup_s=1.0, feedback=None
    )
    report = measure(replace(probe, name="capacity"))
    if report.stopped:
        raise ConfigError("stopped while the capacity was being measured")
    console().print(f"capacity: {report.throughput_per_s:.1f}/s with {concurrency} in flight over {seconds:g} s")
    return max(report.throughput_per_s, 0.1)


@click.command()
def scenarios() -> None:
    """What scenarios are there?"""
    for name in known_scenarios():
        click.secho(name, bold=True)
        click.echo(f"    {load_scenario(name).about}")


def finish(report: Report, given: dict[str, Any], required: tuple[Requirement, ...]) -> None:
    """Shows, writes and judges one report."""
    print_report(console(), report)
    write_outputs(given, f"loadtest: {report.name}", report, [report], report_sections(report))
    end([report], required)
