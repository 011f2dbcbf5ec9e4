"""`convoy explain`: the plan of a configuration, or of a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from convoy.cli.models import print_problems
from convoy.cli.options import config_option, json_option, server_option, settings_of
from convoy.cli.server import session
from convoy.errors import NotReady

if TYPE_CHECKING:
    from serve.config.schema import Settings


@click.command()
@config_option
@click.option("--live", is_flag=True, help="Show the plan of the running server instead of a configuration.")
@server_option
@click.option("--seconds", default=2.0, show_default=True, help="With --live: how long to observe the traffic.")
@json_option
def explain(config: Path | None, live: bool, url: str, seconds: float, as_json: bool) -> None:
    """Show threads, placement, batch limits and latency curves.

    With --live also the time of requests by stage, the utilisation of resources, and the bottleneck.

    \b
    convoy explain -c convoy.yaml
    convoy explain --live --seconds 10
    """
    plan = live_plan(url, seconds) if live else static_plan(settings_of(config, None, {}))
    if as_json:
        click.echo(json.dumps(plan, indent=2))
    else:
        print_plan(plan, Console())


def static_plan(settings: Settings) -> dict[str, Any]:
    """The plan of a configuration on this machine, with the latency curves that earlier starts measured."""
    from dataclasses import asdict

    from models.artifact import Artifact
    from serve.batching.latency_curve import in_milliseconds
    from serve.config.thread_plan import plan_threads
    from serve.ensembles.cost_report import Known, plan_document
    from serve.ensembles.factory import check_compositions, compositions_of, stages_of
    from serve.executors.curve_store import stored_curve

    artifacts = {model.name: Artifact.load(model.folder) for model in settings.models}
    manifests = {name: artifact.manifest for name, artifact in artifacts.items()}
    check_compositions(settings.catalog, manifests)
    known = {name: Known(manifest) for name, manifest in manifests.items()}
    ensembles = {ensemble.name: ensemble for ensemble in settings.ensembles}
    curves = {model.name: stored_curve(settings, model, artifacts[model.name]) for model in settings.models}
    return {
        "threads": asdict(plan_threads(settings)),
        "limits": settings.limits.model_dump(),
        "models_memory_mb": settings.models_memory_mb,
        "models": [model.model_dump() | {"curve_ms": in_milliseconds(curves[model.name])} for model in settings.models],
        "compositions": [
            plan_document(config, stages_of(config, ensembles), known) for config in compositions_of(settings.catalog)
        ],
    }


def live_plan(url: str, seconds: float = 0.0) -> dict[str, Any]:
    """The plan of a running server, with a profile of its next `seconds` if not 0. Raises NotReady without a server."""
    import httpx

    from convoy.client.http_requests import checked

    try:
        with session(url, timeout=seconds + 10) as client:
            plan: dict[str, Any] = checked(client.get("/v1/explain")).json()
            if seconds:
                plan["profile"] = checked(client.get("/v1/profile", params={"seconds": seconds})).json()
    except httpx.HTTPError as error:
        raise NotReady(f"no plan from {url} ({error}); start a server with: convoy up") from error
    return plan


def print_plan(plan: dict[str, Any], console: Console) -> None:
    """Prints a plan as tables."""
    threads = plan["threads"]
    console.print(
        f"{threads['cores']} cores: {threads['decode']} decode threads, "
        f"{threads['local']} threads per local engine, {threads['dedicated']} per dedicated host"
    )
    if budgeted := [model for model in plan["models"] if "in_memory" in model]:
        loaded = [model for model in budgeted if model["in_memory"]]
        used = sum(model["memory_mb"] for model in loaded)
        console.print(
            f"{used:g} of {plan['models_memory_mb']:g} MB for local models in use, by {len(loaded)} of {len(budgeted)}"
        )
    table = Table("model", "placement", "engine", "batch limit", "in flight", "queue", "ms by batch size", box=None)
    for model in plan["models"]:
        curve = model.get("curve_ms", {})
        table.add_row(
            model["name"],
            model["placement"] + ("" if model.get("in_memory", True) else ", lazy"),
            _engine(model),
            str(model.get("batch_limit", f"≤ {model.get('max_batch')}")),
            str(model.get("batches_in_flight", "")),
            str(model.get("queue_limit", "")),
            "  ".join(f"{size}: {ms:g}" for size, ms in curve.items()) or "measured when it runs (--live)",
        )
    console.print(table)
    print_problems(plan.get("problems", []), console)
    if plan.get("compositions"):
        console.print(_compositions(plan["compositions"]))
    if "profile" in plan:
        print_profile(plan["profile"], console)


def print_profile(profile: dict[str, Any], console: Console) -> None:
    """Prints milliseconds by stage, which add up to the total, the utilisation of resources, and the bottleneck."""
    if models := profile["models"]:
        title = f"mean milliseconds by stage over {profile['seconds']:.1f} s"
        table = Table("model", "requests/s", *models[0]["stages_ms"], "total", "p50", "p99", box=None, title=title)
        for model in models:
            times = (*model["stages_ms"].values(), model["total_ms"], model["p50_ms"], model["p99_ms"])
            table.add_row(model["name"], f"{model['requests_per_second']:,.0f}", *(f"{ms:.3f}" for ms in times))
        console.print(table)
    busy = ", ".join(f"{resource['name']} {resource['busy']:.0%}" for resource in profile["resources"])
    console.print(f"busy: {busy}")
    console.print(f"bottleneck: {profile['bottleneck']}")


def _compositions(compositions: list[dict[str, Any]]) -> Table:
    """The members of each stage, the cost of an image in each, and the total cost up to the stage."""
    table = Table(
        "ensemble or cascade", "stage", "member", "views", "rows", "M MACs", "engine ms", "ms up to here", box=None
    )
    for composition in compositions:
        name = f"{composition['name']} ({composition['kind']})"
        for stage in composition["stages"]:
            total = _milliseconds(stage.get("engine_ms_per_image"))
            label = stage["stage"] if composition["kind"] == "cascade" else stage["combine"]
            for member in stage["members"]:
                cost = _milliseconds(member.get("engine_ms_per_image"))
                views = " × ".join(member["views"])
                macs = f"{member['macs_per_image'] / 1e6:,.1f}"
                table.add_row(name, label, member["model"], views, str(member["rows_per_image"]), macs, cost, total)
                name = label = total = ""
    return table


def _engine(model: dict[str, Any]) -> str:
    """The engine that runs, with a remark where it differs from the configured one; without a server, the configured one."""
    if "engine_problem" not in model:
        return f"{model['engine']} {model['precision']}"
    remark = model["engine_problem"] or ("unproven" if model["engine_status"] == "unproven" else "")
    return f"{model['engine']} ({remark})" if remark else str(model["engine"])


def _milliseconds(value: float | None) -> str:
    return "--live" if value is None else f"{value:.3f}"
