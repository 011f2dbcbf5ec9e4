"""`convoy atlas`: measures and charts the cost of networks on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from convoy.cli.stored_engine import store_option
from convoy.engine_names import BACKENDS, PRECISIONS, Precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.artifact import Artifact
    from serve.atlas.choice import Candidate
    from serve.atlas.data import Atlas, Cell, Network


@click.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Data file, in JSON; the HTML page is written beside it.  [default: the file that servers read]",
)
@click.option(
    "--artifact",
    "-a",
    "folders",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of an artifact to measure; repeatable.  [default: the bundled models]",
)
@click.option(
    "--architecture",
    "-n",
    "names",
    multiple=True,
    help="ImageNet architecture of the zoo to measure untrained; repeatable.",
)
@click.option("--zoo", is_flag=True, help="Measure every ImageNet architecture of the zoo, untrained.")
@click.option(
    "--engine",
    "-e",
    "engines",
    multiple=True,
    default=("onnxruntime",),
    type=click.Choice(BACKENDS),
    show_default=True,
    help="Engine; repeatable. Every engine is measured in every precision.",
)
@click.option(
    "--precision",
    "-p",
    "precisions",
    multiple=True,
    default=("fp32",),
    type=click.Choice(PRECISIONS),
    show_default=True,
    help="Precision; repeatable. Missing engines are built; those that fail the accuracy check are not measured.",
)
@store_option
@click.option(
    "--batch",
    "-b",
    "batches",
    multiple=True,
    type=click.IntRange(1, 1024),
    help="Batch size; repeatable.  [default: 1 2 4 8 16 32]",
)
@click.option(
    "--seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.01),
    help="Shortest measuring time of a configuration.",
)
@click.option("--threads", default=0, help="Threads of the engine.  [default: all cores of this machine]")
@click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="A convoy.yaml that declares the power of this machine."
)
@click.option(
    "--dataset", default="imagenet1k", show_default=True, help="With --top1 or --ms: data set of the accuracies."
)
@click.option(
    "--top1",
    type=click.FloatRange(0, 100),
    help="Print the cheapest network of at least this top-1 accuracy in percent.",
)
@click.option("--ms", type=click.FloatRange(0), help="Print the cheapest network that runs a batch within this time.")
@click.option("--json", "as_json", is_flag=True, help="JSON for scripts.")
def atlas(
    out: Path | None, folders: tuple[Path, ...], names: tuple[str, ...], zoo: bool, engines: tuple[str, ...],
    precisions: tuple[Precision, ...], store: str, batches: tuple[int, ...], seconds: float, threads: int,
    config: Path | None, dataset: str, top1: float | None, ms: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure latency, memory and energy of networks on this machine, and chart them against their accuracy.

    Results are kept, so a sweep that is stopped with Ctrl-C continues when it is started again.

    \b
    convoy atlas                                  the bundled models
    convoy atlas --zoo                            every ImageNet architecture of the zoo
    convoy atlas -n resnet18 -n vgg16 -b 1 -b 16
    convoy atlas -e onnxruntime -e openvino -p fp32 -p int8
    convoy atlas --top1 65 --ms 50                the cheapest network that is accurate and fast enough
    """
    from models.engines.store.store import open_store
    from serve.atlas.sweep import BATCHES, Plan, sweep
    from serve.atlas.view import check_page, document, write_page
    from serve.config.loading import load_settings
    from serve.config.schema import default_atlas

    path = out or default_atlas()
    page = path.with_suffix(".html")
    if path == page:
        raise click.UsageError(f"--out {path} would be overwritten by the HTML page; give it the suffix .json")
    check_page(page)
    console = Console(stderr=True)
    artifacts = [*bundled_or(folders), *untrained(names, zoo, path.parent / "networks", console)]
    power = load_settings(config).power
    plan = Plan(artifacts, batches or BATCHES, seconds, threads, power, engines, precisions, open_store(store))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("measuring", total=len(plan.variants()) * len(plan.batches))

        def report(network: Network, batch: int, cell: Cell | None) -> None:
            progress.update(bar, advance=1, description=f"{network.label}, batch {batch}")

        measured = sweep(plan, path, report, lambda what: progress.update(bar, description=what))
    write_page(measured, page)
    best = choose(measured, dataset, top1, ms) if top1 is not None or ms is not None else None
    if as_json:
        chosen = None if best is None else {"network": best.network.label, "batch": best.cell.batch, "top1": best.top1}
        click.echo(json.dumps({"data": str(path), "page": str(page), "cheapest": chosen, **document(measured)}))
        return
    print_summary(measured, best)
    click.echo(f"data: {path}\npage: {page}")


def bundled_or(folders: Sequence[Path]) -> list[Artifact]:
    """The artifacts in the folders, or the bundled ones. Raises ArtifactError."""
    from models.artifact import Artifact
    from serve.config.schema import Settings

    return [Artifact.load(folder) for folder in folders or [model.folder for model in Settings().models]]


def untrained(names: Sequence[str], zoo: bool, folder: Path, console: Console) -> list[Artifact]:
    """Artifacts of untrained architectures, exported once. Raises ConfigError without torch, NotFound for unknown names."""
    from convoy.errors import ArtifactError, ConfigError
    from models.artifact import Artifact

    if not names and not zoo:
        return []
    try:
        from models.compile.untrained import export_untrained, imagenet_architectures
    except ImportError as error:
        raise ConfigError(
            f"architectures of the zoo need torch ({error}): pip install 'convoy-serve[train]'"
        ) from error
    made = []
    for name in names or imagenet_architectures():
        with console.status(f"{name}: export …"):
            try:
                made.append(Artifact.load(folder / name))
            except ArtifactError:
                made.append(export_untrained(name, folder / name))
    return made


def choose(measured: Atlas, dataset: str, top1: float | None, ms: float | None) -> Candidate:
    """The cheapest network within the limits. Raises NotFound when there is none."""
    from serve.atlas.choice import candidates, cheapest

    seconds = float("inf") if ms is None else ms / 1000
    return cheapest(candidates(measured, dataset), (top1 or 0) / 100, seconds)


def print_summary(measured: Atlas, best: Candidate | None) -> None:
    """Prints a row per network and batch size, the failures, the findings and, if there is one, the cheapest network."""
    from serve.atlas.findings import findings

    table = Table("network", "batch", "ms per image", "95 % interval", "MB", "J per image", box=None)
    for cell in measured.cells:
        milliseconds = [
            1e3 * value / cell.batch for value in (cell.seconds.median, cell.seconds.low, cell.seconds.high)
        ]
        table.add_row(
            measured.network(cell.network).label,
            str(cell.batch),
            f"{milliseconds[0]:.3f}",
            f"{milliseconds[1]:.3f} to {milliseconds[2]:.3f}",
            f"{cell.memory_bytes / 1e6:.0f}",
            "unknown" if cell.power is None else f"{cell.power.joules_per_image:.3g} ({cell.power.method})",
        )
    console = Console()
    console.print(table)
    for failure in measured.failures:
        console.print(f"{failure.network}, batch {failure.batch}: {failure.reason}")
    for finding in findings(measured):
        console.print(f"[bold]{finding.verdict}[/bold]: {finding.claim} {finding.evidence}")
    if best is not None:
        console.print(
            f"cheapest: [bold]{best.network.label}[/bold] at batch {best.cell.batch}: top-1 {best.top1:.1%}, "
            f"{best.cost * 1e3:.2f} ms per image, {best.cell.seconds.median * 1e3:.1f} ms until a batch is answered"
        )
