"""`python -m benchmarks.ab_example`: the worked example of docs/experiments.md, measured on a real server.

ResNet-20 and one that was trained for a few epochs only are the arms; the 10 000 CIFAR-10 test images are the traffic, and their
labels come when all of them have been answered, first with the arms apart and then in pairs.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.marks import write_between
from models.artifact import BUNDLED, Artifact
from models.compile import compile_artifact, find_plan
from models.data import DataSet, load_data
from models.train.recipes import find_recipe
from models.train.trainer import Trainer
from serve import app
from serve.config import Settings, parse_settings
from serve.held_out import BATCH_ROWS
from serve.sockets import bind

PAGE = Path(__file__).resolve().parent.parent / "docs" / "experiments.md"
BEGIN, END = "<!-- example -->", "<!-- end of example -->"
MODEL = "resnet20-cifar10"
EPOCHS = 3
EFFECT = 0.03
CONNECTIONS = 8
WATTS = {"idle_watts": 40, "busy_watts": 95}
MODES = {"split": "apart", "paired": "in-pairs"}
PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Example:
    """A report of each mode, and what the whole test set says: accuracy of the short-trained net and of the bundled one."""

    reports: dict[str, dict[str, Any]]
    accuracy: tuple[float, float]

    @property
    def truth(self) -> float:
        return self.accuracy[1] - self.accuracy[0]


def train_briefly(folder: Path, data: DataSet, epochs: int = EPOCHS) -> Path:
    """An artifact of the same architecture after a few epochs."""
    recipe = replace(find_recipe(MODEL), epochs=epochs, early_epochs=epochs - 1)
    Trainer(recipe, data, folder / "run").run()
    compile_artifact(MODEL, find_plan(MODEL), folder / "run" / "checkpoint.pt", folder / "artifact")
    return folder / "artifact"


def configure(folder: Path, brief: Path, ports: list[int]) -> Settings:
    """The two nets, and an experiment of each mode over them."""
    arms = [{"name": "brief", "model": "resnet20-brief"}, {"name": "full", "model": MODEL}]
    return parse_settings(
        {
            "listen": dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)),
            "runtime_dir": str(folder / "node"),
            "power": WATTS,
            "models": [{"name": MODEL}, {"name": "resnet20-brief", "artifact": str(brief)}],
            "experiments": [
                {"name": name, "mode": mode, "arms": arms, "effect": EFFECT} for mode, name in MODES.items()
            ],
        }
    )


def play(url: str, data: DataSet, accuracy: tuple[float, float], images: int) -> Example:
    """Sends the first test images to both experiments, then their labels."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    with httpx.Client(base_url=url, timeout=60, limits=limits) as client:
        reports = {mode: _play(client, name, data, images) for mode, name in MODES.items()}
    return Example(reports, accuracy)


def _play(client: httpx.Client, name: str, data: DataSet, images: int) -> dict[str, Any]:
    def ask(number: int) -> None:
        body = _png(data.test.images[number])
        client.post(f"/v1/models/{name}/classify", params={"id": f"{name}-{number}"}, content=body).raise_for_status()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(ask, range(images)):
            pass
    for first in range(0, images, BATCH_ROWS):
        labels = data.test.labels[first : min(images, first + BATCH_ROWS)].tolist()
        items = [{"id": f"{name}-{first + place}", "label": label} for place, label in enumerate(labels)]
        client.post("/v1/feedback", json={"feedback": items}).raise_for_status()
    return _settled(client, name)


def _settled(client: httpx.Client, name: str) -> dict[str, Any]:
    """The report once no more samples come in."""
    before, deadline = -1, time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        report: dict[str, Any] = client.get(f"/v1/experiments/{name}/report").raise_for_status().json()
        samples = sum(arm["samples"] for arm in report["arms"])
        if samples == before and samples:
            return report
        before = samples
        time.sleep(1)
    raise RuntimeError(f"no report of {name} came to rest")


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def lines(example: Example) -> Iterator[str]:
    """The tables of the page."""
    few, many = (f"{100 * one:.2f} %" for one in example.accuracy)
    yield f"On all 10 000 test images `full` is right on {many} and `brief`, after {EPOCHS} epochs, on {few}:"
    yield f"{100 * example.truth:.2f} points apart."
    yield ""
    yield "| mode | difference | samples seen | settled after | sentence |"
    yield "| --- | --- | --- | --- | --- |"
    for mode, report in example.reports.items():
        (one,) = report["comparisons"]
        low, high = (100 * one["difference"][side] for side in ("low", "high"))
        yield (
            f"| {mode} | {low:.2f} to {high:.2f} points | {one['samples']:,} | {one['settled_after']:,} |"
            f" {report['sentence']} |"
        )
    yield ""
    yield "| mode, arm | accuracy | p99 ms | engine ms per image | mJ per image | from |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for mode, report in example.reports.items():
        for arm in report["arms"]:
            yield _arm(mode, arm)


def _arm(mode: str, arm: dict[str, Any]) -> str:
    energy = arm["energy"]
    joules = f"{1000 * energy['joules_per_image']['value']:.1f} | {energy['source']}, {energy['method']}"
    accuracy, p99, engine = (arm[key]["value"] for key in ("metric", "p99_ms", "engine_ms"))
    return f"| {mode}, {arm['name']} | {100 * accuracy:.2f} % | {p99:.0f} | {engine:.2f} | {joules} |"


def measure() -> Example:
    """Trains the second net, serves both, sends everything."""
    data = load_data("cifar10")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        brief = train_briefly(folder, data)
        few, many = (Artifact.load(one).manifest.accuracy["top1"] for one in (brief, BUNDLED / MODEL))
        settings = configure(folder, brief, [_free_port() for _ in range(3)])
        app.start(settings)
        try:
            url = f"http://127.0.0.1:{settings.listen.http_port}"
            return play(url, data, (few, many), len(data.test.labels))
        finally:
            app.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ab_example", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the reports here, and leave the page as it is")
    out = parser.parse_args().json
    example = measure()
    if out is not None:
        out.write_text(json.dumps(asdict(example)))
        return
    write_between(PAGE, BEGIN, "\n".join(lines(example)), END)


def _free_port() -> int:
    with bind("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
