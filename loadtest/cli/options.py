"""Options that several commands share, and the plan that they define."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from convoy.errors import ConfigError
from loadtest.arrivals import read_recorded
from loadtest.plan import PROTOCOLS, SEED, LabelSource, Load, Payload, PayloadKind, Plan, Process, Step, Target, Traffic
from loadtest.scenario import protocol_of, seconds

Command = TypeVar("Command", bound=Callable[..., Any])
FOREVER = 365 * 24 * 3600.0


class Duration(click.ParamType[float]):
    """A duration in seconds, written as 500ms, 30s, 5m or 2h."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return seconds(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class OutputFile(click.Path):
    """An output file. It is written after the run, so an unusable path must be refused before a long run starts."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(super().convert(value, param, ctx)))
        if not os.access(path.parent, os.W_OK):
            self.fail(f"the folder {str(path.parent)!r} does not exist or cannot be written to", param, ctx)
        return path


DURATION = Duration()
OUTPUT_FILE = OutputFile()

# How a request is made. LoadGen leaves these to the client, and chooses model and connections itself.
REQUESTS = (
    click.option("--protocol", type=click.Choice(PROTOCOLS), default=None,
                 help="Protocol of the requests. Default: classify (HTTP: raw image bytes), grpc for grpc:// URLs. "
                      "oip, oip-json, oip-raw, grpc: Open Inference Protocol; raw: POST the bytes to --path."),
    click.option("--path", default="", help="Path that replaces the protocol's, e.g. /predictions/resnet-18."),
    click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Header of every request."),
)  # fmt: skip
TARGET = (
    click.option("-m", "--model", "models", multiple=True, required=True, help="Model to use; repeat for an even mix."),
    *REQUESTS,
    click.option("--no-keep-alive", is_flag=True, help="A new connection for every request."),
    click.option("--timeout", type=DURATION, default="30s", show_default=True, help="Time until a request counts as failed."),
    click.option("--max-connections", type=int, default=1024, show_default=True, help="Per worker."),
    click.option("--metrics", metavar="URL", help="Prometheus metrics of the server, for stages, batch sizes and energy."),
)  # fmt: skip
SAMPLES = (
    click.option("--images", type=click.Path(exists=True, file_okay=False), help="Folder of images to send."),
    click.option("--labels", type=click.Choice(["none", "folder", "prefix", "csv"]), default="none",
                 help="True labels: LABEL/image.jpg, 0207_name.jpg, or --labels-csv; accuracy is then reported."),
    click.option("--labels-csv", type=click.Path(exists=True, dir_okay=False), help="File with the columns file,label."),
    click.option("--count", type=int, default=None, help="Distinct images or tensors. Default: 64; with --images 1000."),
    click.option("--side", type=int, default=224, show_default=True, help="Synthetic images: median long side in pixels."),
    click.option("--side-spread", type=float, default=0.0, help="Synthetic images: sigma of the log-normal size distribution."),
    click.option("--gray", is_flag=True, help="Synthetic images: one channel."),
    click.option("--format", "image_format", type=click.Choice(["jpeg", "png"]), default="jpeg",
                 help="Synthetic images: file format."),
    click.option("--tensor", is_flag=True, help="Send random tensors; the server is asked for shape and type."),
    click.option("--shape", default="", metavar="N,N,...", help="Tensor shape without the batch dimension."),
    click.option("--datatype", default="FP32", show_default=True, help="Tensor type."),
    click.option("--input-name", default="", help="Name of the input; without it the server is asked."),
)  # fmt: skip
PAYLOAD = (
    *SAMPLES,
    click.option("--batch", type=int, default=1, show_default=True, help="Images or rows per request."),
    click.option("--priority", type=int, help="Sent as X-Request-Priority and as the protocol's parameter."),
    click.option("--slow-upload", type=float, metavar="BYTES/S", help="Upload rate of clients with a slow uplink."),
)  # fmt: skip
MEASURE = (
    click.option("--duration", type=DURATION, default="10s", show_default=True, help="Measured time."),
    click.option("--warmup", type=DURATION, default="2s", show_default=True, help="Time before it, which is not in the figures."),
    click.option("--deadline", type=DURATION, help="Deadline of each request; goodput counts the answers within it."),
    click.option("--seed", type=int, default=SEED, show_default=True, help="The same seed gives the same arrivals and payloads."),
    click.option("--workers", type=int, default=1, show_default=True, help="Processes of the generator."),
    click.option("--driver", type=click.Choice(["loadtest", "wrk"]), default="loadtest", show_default=True,
                 help="wrk: closed loop in C, for rates at which Python uses too much of shared cores."),
)  # fmt: skip
ARRIVALS = (
    click.option("--arrivals", type=click.Choice(["poisson", "constant", "gamma"]), default="poisson", show_default=True,
                 help="Open loop: independent users, equal gaps, or bursts."),
    click.option("--burstiness", type=float, default=3.0, show_default=True, help="gamma: coefficient of variation of the gaps."),
)  # fmt: skip
RATE = (
    click.option("--rate", type=float, help="Open loop: requests per second."),
    *ARRIVALS,
)  # fmt: skip
SHAPE = (
    click.option("--steps", metavar="RATE@TIME,...", help="Open loop with a changing rate, e.g. 10@10s,50@5s,10@20s."),
    click.option("--recorded", type=click.Path(exists=True, dir_okay=False), help="Open loop: file of arrival times in seconds."),
    click.option("--concurrency", type=int, help="Closed loop: requests in flight."),
    click.option("--think", type=DURATION, default="0s", help="Closed loop: time between an answer and the next request."),
)  # fmt: skip
OUTPUT = (
    click.option("--json", "json_path", type=OUTPUT_FILE, help="Write the complete report as JSON."),
    click.option("--csv", "csv_path", type=OUTPUT_FILE, help="Write CSV with perf_analyzer's columns."),
    click.option("--html", "html_path", type=OUTPUT_FILE, help="Write a self-contained HTML page."),
)  # fmt: skip


def with_options(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[Command], Command]:
    """A decorator that adds groups of options to a command, in order."""

    def add(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return add


def make_plan(url: str, name: str, options: dict[str, Any]) -> Plan:
    """The plan that the options define. Raises ConfigError."""
    target = make_target(url, options)
    deadline = options.get("deadline")
    deadline_ms = None if deadline is None else deadline * 1000
    traffic = tuple(
        Traffic(
            model=model,
            payload=make_payload(options),
            batch=options["batch"],
            path=options["path"],
            priority=options["priority"],
            deadline_ms=deadline_ms,
            upload_bytes_per_s=options["slow_upload"],
        )
        for model in options["models"]
    )
    load = make_load(options)
    timed = options.get("steps") or load.recorded
    return Plan(
        target=target,
        traffic=traffic,
        load=load,
        duration_s=load.seconds - options["warmup"]
        if timed and load.seconds > options["warmup"]
        else options["duration"],
        warmup_s=options["warmup"],
        seed=options["seed"],
        workers=options["workers"],
        deadline_ms=deadline_ms,
        name=name,
    )


def make_target(url: str, options: dict[str, Any]) -> Target:
    """The target that the options define; the protocol's default depends on the URL. Raises ConfigError."""
    default = "grpc" if url.startswith("grpc:") else "oip" if options["tensor"] else "classify"
    pairs = [header.partition(":") for header in options["headers"]]
    if any(not colon for _, colon, _ in pairs):
        raise ConfigError("--header must be NAME:VALUE")
    return Target(
        url=url,
        protocol=protocol_of(options["protocol"] or default),
        keep_alive=not options["no_keep_alive"],
        timeout_s=options["timeout"],
        max_connections=options["max_connections"],
        headers=tuple((name.strip(), value.strip()) for name, _, value in pairs),
        metrics_url=options["metrics"],
    )


def make_payload(options: dict[str, Any]) -> Payload:
    """The payload that the options define. Raises ConfigError."""
    kind: PayloadKind = "tensor" if options["tensor"] else "folder" if options["images"] else "synthetic"
    labels: LabelSource = "csv" if options["labels_csv"] else options["labels"]
    if labels != "none" and kind != "folder":
        raise ConfigError("--labels and --labels-csv need --images")
    try:
        shape = tuple(int(size) for size in options["shape"].split(",")) if options["shape"] else ()
    except ValueError as error:
        raise ConfigError(f"--shape {options['shape']!r} is not like 3,224,224") from error
    return Payload(
        kind=kind,
        folder=options["images"] or "",
        labels=labels,
        labels_csv=options["labels_csv"] or "",
        count=options["count"] if options["count"] is not None else 1000 if kind == "folder" else 64,
        side=options["side"],
        side_spread=options["side_spread"],
        channels=1 if options["gray"] else 3,
        format=options["image_format"],
        tensor=options["input_name"],
        shape=shape,
        datatype=options["datatype"],
    )


def make_load(options: dict[str, Any]) -> Load:
    """The load that the options define; options that a command lacks have their defaults. Raises ConfigError."""
    steps: tuple[Step, ...] = ()
    if options.get("rate"):
        steps = (Step(options["rate"], FOREVER),)
    if options.get("steps"):
        steps += _steps(options["steps"])
    recorded = read_recorded_file(options["recorded"]) if options.get("recorded") else ()
    if (options.get("rate") and options.get("steps")) or not (steps or recorded or options.get("concurrency")):
        raise ConfigError("choose one load: --rate N, --steps, --recorded FILE or --concurrency N")
    process: Process = options.get("arrivals") or "poisson"
    return Load(
        process=process,
        steps=steps,
        burstiness=options.get("burstiness") or 3.0,
        recorded=recorded,
        concurrency=options.get("concurrency") or 0,
        think_s=options.get("think") or 0.0,
    )


def _steps(text: str) -> tuple[Step, ...]:
    pairs = [part.partition("@") for part in text.split(",")]
    try:
        return tuple(Step(float(rate), seconds(time)) for rate, _, time in pairs)
    except ValueError as error:
        raise ConfigError(f"--steps {text!r} is not like 10@10s,50@5s,10@20s") from error


def read_recorded_file(path: str) -> tuple[float, ...]:
    """Arrival times in seconds, one per line. Raises ConfigError."""
    try:
        return read_recorded(Path(path).read_text())
    except ValueError as error:
        raise ConfigError(f"{path} must hold one time in seconds per line: {error}") from error
