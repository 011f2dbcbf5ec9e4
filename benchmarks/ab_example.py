"""`python -m benchmarks.ab_example`: the worked example of docs/experiments.md, measured on a real server.

Two bundled CIFAR-10 nets are the arms; the 10 000 test images are the traffic, and their labels are sent after the last answer.
The experiment runs twice: with the traffic split between the arms, and with every image sent to both (paired).
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.marks import write_between
from benchmarks.server import free_ports
from models.artifact import BUNDLED, Artifact, Manifest
from models.datasets import Split, load_data
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments import local

PAGE = Path(__file__).resolve().parent.parent / "docs" / "experiments.md"
BEGIN, END = "<!-- example -->", "<!-- end of example -->"
DATA = "cifar10"
EFFECT = 0.03
CONNECTIONS = 8
LABELS = 100  # per feedback request
WATTS = {"idle_watts": 40, "busy_watts": 95}
MODES = {"split": "apart", "paired": "in-pairs"}
PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Arm:
    """A net and its accuracy on the whole test set."""

    model: str
    accuracy: float


@dataclass(frozen=True)
class Example:
    """The report of each mode, and both arms: the control, and the net that is better."""

    reports: dict[str, dict[str, Any]]
    control: Arm
    better: Arm

    @property
    def truth(self) -> float:
        """The difference of accuracies on the whole test set, 0..1."""
        return self.better.accuracy - self.control.accuracy


def choose(manifests: Iterable[Manifest], least: float = EFFECT) -> tuple[Arm, Arm]:
    """The two nets whose accuracies differ least, but by at least `least`: the hardest comparison. The worse net comes first.

    Raises ValueError when no two nets differ that much.
    """
    nets = [Arm(manifest.name, manifest.accuracy["top1"]) for manifest in manifests if manifest.dataset == DATA]
    nets.sort(key=lambda arm: arm.accuracy)
    apart = [(low, high) for low, high in combinations(nets, 2) if high.accuracy - low.accuracy >= least]
    if not apart:
        raise ValueError(f"no two bundled {DATA} nets are {100 * least:g} points apart")
    return min(apart, key=lambda pair: pair[1].accuracy - pair[0].accuracy)


def bundled() -> Iterator[Manifest]:
    for file in sorted(BUNDLED.glob("*/manifest.json")):
        yield Artifact.load(file.parent).manifest


def configure(folder: Path, arms: tuple[Arm, Arm], ports: list[int]) -> Settings:
    """Settings that serve both nets, and an experiment of each mode over them."""
    names = [arm.model for arm in arms]
    return parse_settings(
        {
            "listen": dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)),
            "runtime_dir": str(folder / "node"),
            "power": WATTS,
            "models": [{"name": name} for name in names],
            "experiments": [
                {"name": name, "mode": mode, "arms": [{"name": arm, "model": arm} for arm in names], "effect": EFFECT}
                for mode, name in MODES.items()
            ],
        }
    )


def play(url: str, images: Split) -> dict[str, dict[str, Any]]:
    """Sends images to both experiments, then their labels. Returns the report of each mode."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    with httpx.Client(base_url=url, timeout=60, limits=limits) as client:
        return {mode: _play(client, name, images) for mode, name in MODES.items()}


def _play(client: httpx.Client, name: str, images: Split) -> dict[str, Any]:
    def ask(number: int) -> None:
        body = _png(images.images[number])
        client.post(f"/v1/models/{name}/classify", params={"id": f"{name}-{number}"}, content=body).raise_for_status()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(ask, range(len(images.labels))):
            pass
    for first in range(0, len(images.labels), LABELS):
        labels = images.labels[first : first + LABELS].tolist()
        items = [{"id": f"{name}-{first + place}", "label": label} for place, label in enumerate(labels)]
        client.post("/v1/feedback", json={"feedback": items}).raise_for_status()
    return _settled(client, name)


def _settled(client: httpx.Client, name: str) -> dict[str, Any]:
    """The report once its number of samples stops growing. Raises RuntimeError."""
    before, deadline = -1, time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        report: dict[str, Any] = client.get(f"/v1/experiments/{name}/report").raise_for_status().json()
        samples = sum(arm["samples"] for arm in report["arms"])
        if samples == before and samples:
            return report
        before = samples
        time.sleep(1)
    raise RuntimeError(f"the report of {name} still changes after {PATIENCE_SECONDS} s")


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def lines(example: Example) -> Iterator[str]:
    """The Markdown lines for docs/experiments.md."""
    control, better = example.control, example.better
    yield f"On all 10 000 test images the accuracy of `{better.model}` is {100 * better.accuracy:.2f} % and that of"
    yield f"`{control.model}` {100 * control.accuracy:.2f} %: a difference of {100 * example.truth:.2f} points."
    yield ""
    yield "| mode | difference | samples seen | settled after | sentence |"
    yield "| --- | --- | --- | --- | --- |"
    for mode, report in example.reports.items():
        (comparison,) = report["comparisons"]
        low, high = (100 * comparison["difference"][side] for side in ("low", "high"))
        yield (
            f"| {mode} | {low:.2f} to {high:.2f} points | {comparison['samples']:,} | {_settled_after(comparison)} |"
            f" {report['sentence']} |"
        )
    yield ""
    yield "| mode, arm | accuracy | p99 ms | engine ms per image | mJ per image | from |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for mode, report in example.reports.items():
        for arm in report["arms"]:
            yield _arm(mode, arm)


def _settled_after(comparison: dict[str, Any]) -> str:
    return "undecided" if comparison["settled_after"] is None else f"{comparison['settled_after']:,}"


def _arm(mode: str, arm: dict[str, Any]) -> str:
    energy = arm["energy"]
    joules = f"{1000 * energy['joules_per_image']['value']:.1f} | {energy['source']}, {energy['method']}"
    accuracy, p99, engine = (arm[key]["value"] for key in ("metric", "p99_ms", "engine_ms"))
    return f"| {mode}, {arm['name']} | {100 * accuracy:.2f} % | {p99:.0f} | {engine:.2f} | {joules} |"


def measure(images: Split, arms: tuple[Arm, Arm]) -> Example:
    """Serves both nets, and sends the images and their labels."""
    with tempfile.TemporaryDirectory() as name:
        settings = configure(Path(name), arms, free_ports(3))
        local.start(settings)
        try:
            reports = play(f"http://127.0.0.1:{settings.listen.http_port}", images)
        finally:
            local.stop()
    return Example(reports, *arms)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ab_example", description=__doc__)
    parser.add_argument(
        "--json", type=Path, help="write the reports into this file and leave docs/experiments.md unchanged"
    )
    out = parser.parse_args().json
    example = measure(load_data(DATA).test, choose(bundled()))
    if out is not None:
        out.write_text(json.dumps(asdict(example)))
        return
    write_between(PAGE, BEGIN, "\n".join(lines(example)), END)


if __name__ == "__main__":
    main()
