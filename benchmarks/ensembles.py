"""`python -m benchmarks.ensembles`: ensembles, views and cascades on the CIFAR-10 test images, through a real server.

Everything is chosen and fitted on the held-out images; the 10 000 test images only report. `--write` puts the tables into
docs/ensembles.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.marks import write_between
from benchmarks.slow_artifact import write_slow_copy
from models.artifact import BUNDLED, IMAGE_MODEL, Artifact
from models.datasets import load_data
from models.engines.backends.registry import load_engine
from models.ensembles.calibration import expected_calibration_error
from models.ensembles.combine import combine
from models.ensembles.suggest import Choice, Option, pareto_front, select_greedily
from models.ensembles.thresholds import Candidate, Fitted, fit_for_accuracy
from models.ensembles.views import View
from serve.config.loading import parse_settings
from serve.config.schema import ModelConfig, Settings
from serve.config.thread_plan import available_cores
from serve.deployments import local
from serve.planning.ensemble_evaluation import Voter, engine_ms

PAGE = Path(__file__).parent.parent / "docs" / "ensembles.md"
BEGIN, END = "<!-- made by python -m benchmarks.ensembles --write -->", "<!-- end -->"
PORTS = {"http_port": 18000, "grpc_port": 18001, "metrics_port": 18002}
PIXELS = 50_000_000
IMAGES_PER_REQUEST, CONNECTIONS = 25, 4
TIMED, SLOWED = 400, 300
SLOW_SECONDS, DEADLINE_MS = 2.0, 100
IDLE_WATTS, BUSY_WATTS = 15.0, 45.0  # declared, not measured: only proportions of joules mean something

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A candidate with its scores [images, classes], milliseconds per image and accuracy on the validation set."""

    name: str
    model: str
    views: tuple[View, ...]
    scores: NDArray[np.float32]
    ms: float
    accuracy: float

    def member(self) -> dict[str, Any]:
        return {"model": self.model, "views": list(self.views)}


@dataclass(frozen=True)
class Plan:
    """What is served: the best single network, its mirror views, the best set and a cascade."""

    single: Judged
    flip: Judged
    best: tuple[Judged, ...]
    cascade: tuple[Judged, Judged]
    fitted: Fitted
    front: list[Choice]


def cifar_models() -> list[str]:
    """The bundled models of CIFAR-10."""
    manifests = (Artifact.load(path.parent).manifest for path in sorted(BUNDLED.glob("*/manifest.json")))
    return [manifest.name for manifest in manifests if manifest.dataset == "cifar10"]


def judge(threads: int) -> tuple[list[Judged], NDArray[np.int64]]:
    """Every model alone, with flip, and with shift and flip, on the validation set."""
    held_out = load_data("cifar10").held_out
    judged = []
    views: tuple[tuple[View, ...], ...] = (("identity",), ("flip",), ("shift", "flip"))
    for model in cifar_models():
        for looks in views:
            voter = Voter(ModelConfig(name=model), looks, False, threads, PIXELS)
            scores, cost = voter.scores(list(held_out.images)), engine_ms([voter], list(held_out.images))
            name = model if looks == ("identity",) else f"{model} {' '.join(looks)}"
            judged.append(Judged(name, model, looks, scores, cost, accuracy_of(scores, held_out.labels)))
    return judged, held_out.labels


def choose(judged: Sequence[Judged], labels: NDArray[np.int64]) -> Plan:
    """Chosen on the validation set only."""
    by_name = {one.name: one for one in judged}
    alone = [one for one in judged if one.views == ("identity",)]
    single = max(alone, key=lambda one: one.accuracy)
    flip = next(one for one in judged if one.model == single.model and one.views == ("flip",))
    cheap = [one for one in judged if one.views in (("identity",), ("flip",))]
    choices = select_greedily([Option(one.name, one.scores, one.ms) for one in cheap], labels, most=3)
    largest_set = max(len(choice.members) for choice in choices)
    best = max((one for one in choices if len(one.members) == largest_set), key=lambda one: one.accuracy)
    pairs = []
    last = max(judged, key=lambda one: one.accuracy)
    for first in judged:
        if first.ms < last.ms:
            stages = [Candidate(one.name, one.scores, one.ms) for one in (first, last)]
            pairs.append((first, fit_for_accuracy(stages, labels, last.accuracy)))
    first, fitted = min(pairs, key=lambda pair: pair[1].cost)
    members = tuple(by_name[name] for name in best.members)
    return Plan(single, flip, members, (first, last), fitted, pareto_front(choices))


def configuration(plan: Plan, slow: Path, folder: Path) -> Settings:
    first, last = plan.cascade
    slowed = [one.member() for one in plan.best[:2]] + [{"model": "slow"}]
    return parse_settings(
        {
            "listen": PORTS,
            "runtime_dir": str(folder / "node"),
            "models": [
                *({"name": name} for name in cifar_models()),
                {"name": "slow", "artifact": str(slow), "placement": "dedicated", "max_batch": 1, "threads": 1},
            ],
            "ensembles": [
                {"name": "single", "members": [plan.single.member()]},
                {"name": "calibrated", "members": [plan.single.member() | {"calibrated": True}]},
                {"name": "flip", "members": [plan.flip.member()]},
                {"name": "best", "members": [one.member() for one in plan.best]},
                {"name": "last", "members": [last.member()]},
                {"name": "slowed", "deadline_ms": DEADLINE_MS, "min_members": 2, "members": slowed},
            ],
            "cascades": [
                {
                    "name": "cascade",
                    "stages": [first.member() | {"margin": plan.fitted.thresholds[0]}, last.member()],
                }
            ],
        }
    )


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    local.start(settings)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.listen.http_port}", timeout=60) as client:
            yield client
    finally:
        local.stop()


def encoded(images: NDArray[np.uint8]) -> list[bytes]:
    bodies = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", compress_level=1)
        bodies.append(stream.getvalue())
    return bodies


def classify_all(client: httpx.Client, model: str, bodies: Sequence[bytes]) -> tuple[Rows, dict[str, float]]:
    """Probabilities [n, 10] of all images, and how many each member was asked for."""

    def ask(start: int) -> dict[str, Any]:
        images = [base64.b64encode(body).decode() for body in bodies[start : start + IMAGES_PER_REQUEST]]
        answer = client.post(f"/v1/models/{model}/classify", json={"images": images, "top_k": 10})
        document: dict[str, Any] = answer.raise_for_status().json()
        return document

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        documents = list(pool.map(ask, range(0, len(bodies), IMAGES_PER_REQUEST)))
    rows = [one["classes"] for document in documents for one in document["predictions"]]
    probabilities = np.zeros((len(rows), 10))
    for row, classes in enumerate(rows):
        probabilities[row, [one["index"] for one in classes]] = [one["probability"] for one in classes]
    asked: dict[str, float] = {}
    for document in documents:
        for position, part in enumerate(document.get("members", [])):
            key = f"{position} {part['model']}"
            asked[key] = asked.get(key, 0) + part["images"]
    return probabilities, asked


def time_singly(client: httpx.Client, model: str, bodies: Sequence[bytes]) -> Mapping[str, NDArray[np.float64]]:
    """Milliseconds of requests of one image, one after another: whole, decoding, and of the members' engines."""
    rows = []
    for body in bodies:
        start = time.perf_counter()
        document = client.post(f"/v1/models/{model}/classify", content=body).raise_for_status().json()
        whole = (time.perf_counter() - start) * 1000
        engines = sum(part["engine_ms"] for part in document.get("members", []))
        rows.append((whole, document["timings_ms"]["decode"], engines))
    return dict(zip(("whole", "decode", "engine"), np.array(rows).T, strict=True))


def offline(plan: Plan, threads: int, images: NDArray[np.uint8]) -> dict[str, Rows]:
    """What the flip and the best set must answer: numpy in double precision, from nothing but the engines' logits."""
    return {
        "flip": _mean_probability(plan.flip, threads, images),
        "best": np.mean([_mean_probability(one, threads, images) for one in plan.best], axis=0),
    }


def _mean_probability(judged: Judged, threads: int, images: NDArray[np.uint8]) -> Rows:
    engine = load_engine(BUNDLED / judged.model / IMAGE_MODEL, threads)
    looks = [images] if judged.views == ("identity",) else [images, images[:, :, ::-1]]
    distributions = []
    for rows in looks:
        logits = np.concatenate([engine.run(np.ascontiguousarray(part)) for part in np.array_split(rows, 100)])
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        distributions.append(powers / powers.sum(axis=1, keepdims=True))
    return np.asarray(np.mean(distributions, axis=0))


def combining_share(plan: Plan) -> tuple[float, float]:
    """Milliseconds that combining takes for one image, and its share of the members' engine time."""
    votes = np.concatenate([one.scores[np.newaxis, :1] for one in plan.best])
    weights = np.ones(len(votes))
    start = time.perf_counter()
    for _ in range(2000):
        combine(votes, weights, "mean_probability")
    each = (time.perf_counter() - start) / 2000 * 1000
    return each, each / sum(one.ms for one in plan.best)


def accuracy_of(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    return float((scores.argmax(axis=1) == labels).mean())


def joules(engine_milliseconds: float) -> float:
    """Millijoules above idle by the declared model: an engine that runs uses every core."""
    return engine_milliseconds * (BUSY_WATTS - IDLE_WATTS)


def measure(images: int) -> list[str]:
    threads = available_cores()
    judged, held_out = judge(threads)
    plan = choose(judged, held_out)
    test = load_data("cifar10").test
    pixels, labels = test.images[:images], test.labels[:images]
    bodies = encoded(pixels)
    with tempfile.TemporaryDirectory() as folder:
        slow = write_slow_copy(BUNDLED / plan.single.model, Path(folder) / "slow", SLOW_SECONDS)
        with serving(configuration(plan, slow, Path(folder))) as client:
            names = ("single", "flip", "best", "last", "cascade", "calibrated")
            answers = {name: classify_all(client, name, bodies) for name in names}
            times = {name: time_singly(client, name, bodies[:TIMED]) for name in names}
            slowed = time_singly(client, "slowed", bodies[:SLOWED])["whole"]
    return [
        *_accuracy_table(plan, answers, times, labels),
        "",
        *_claims(plan, answers, times, slowed, offline(plan, threads, pixels), labels),
        "",
        *_front_table(plan, {one.name: one for one in judged}, threads),
    ]


def _accuracy_table(
    plan: Plan,
    answers: Mapping[str, tuple[Rows, Mapping[str, float]]],
    times: Mapping[str, Mapping[str, NDArray[np.float64]]],
    labels: NDArray[np.int64],
) -> list[str]:
    first, last = plan.cascade
    titles = {
        "single": f"best single net: {plan.single.name}",
        "flip": "the same with its mirror image",
        "best": "best set: " + " + ".join(one.name for one in plan.best),
        "last": f"largest member of the cascade: {last.name}",
        "cascade": f"cascade: {first.name}, then {last.name} below a margin of {plan.fitted.thresholds[0]:.3f}",
    }
    base = accuracy_of(answers["single"][0], labels)
    lines = [
        "| served model | top-1 | points more | median ms | extra ms | engine ms | extra mJ (modelled) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in titles.items():
        accuracy = accuracy_of(answers[name][0], labels)
        whole, engine = (float(np.median(times[name][key])) for key in ("whole", "engine"))
        engine = float(np.mean(times[name]["engine"])) if name == "cascade" else engine
        extra_ms = whole - float(np.median(times["single"]["whole"]))
        extra_mj = joules(engine - float(np.median(times["single"]["engine"])))
        lines.append(
            f"| {title} | {accuracy:.2%} | {100 * (accuracy - base):+.2f} | {whole:.2f} | {extra_ms:+.2f} "
            f"| {engine:.2f} | {extra_mj:+.0f} |"
        )
    return lines


def _claims(
    plan: Plan,
    answers: Mapping[str, tuple[Rows, Mapping[str, float]]],
    times: Mapping[str, Mapping[str, NDArray[np.float64]]],
    slowed: NDArray[np.float64],
    expected: Mapping[str, Rows],
    labels: NDArray[np.int64],
) -> list[str]:
    cascade, last = (accuracy_of(answers[name][0], labels) for name in ("cascade", "last"))
    engine = float(np.mean(times["cascade"]["engine"]) / np.mean(times["last"]["engine"]))
    asked = list(answers["cascade"][1].values())
    apart = max(float(np.abs(answers[name][0] - rows).max()) for name, rows in expected.items())
    each, share = combining_share(plan)
    before, after = (
        expected_calibration_error(np.log(np.maximum(answers[name][0], 1e-30)), labels)
        for name in ("single", "calibrated")
    )
    decode = {name: float(np.median(times[name]["decode"])) for name in ("single", "best")}
    p99 = float(np.percentile(slowed, 99))
    return [
        "| asked for | measured |",
        "| --- | --- |",
        f"| cascade within 0.2 points of its largest member | {100 * (cascade - last):+.2f} points |",
        f"| at no more than 60 % of its engine time | {engine:.0%}; {asked[-1] / asked[0]:.1%} of the images went on |",
        f"| combined answers equal an offline numpy computation to 1e-5 | largest difference {apart:.1e} over "
        f"{len(labels)} images |",
        f"| p99 with a member slowed to {SLOW_SECONDS:g} s under the deadline of {DEADLINE_MS} ms + 10 % | {p99:.1f} ms |",
        f"| one decode per request | decode stage {decode['single']:.3f} ms for one net, {decode['best']:.3f} ms for the set |",
        f"| combining costs at most 5 % of the members' run time | {each * 1000:.0f} µs, {share:.2%} |",
        f"| calibration error before and after its temperature | {before:.2%}, {after:.2%} |",
    ]


def _front_table(plan: Plan, judged: Mapping[str, Judged], threads: int) -> list[str]:
    images = list(load_data("cifar10").held_out.images[:50])
    lines = [
        "| set on the Pareto front | held-out top-1 | predicted engine ms | measured ms |",
        "| --- | --- | --- | --- |",
    ]
    for choice in plan.front:
        chosen = [judged[name] for name in choice.members]
        voters = [Voter(ModelConfig(name=one.model), one.views, False, threads, PIXELS) for one in chosen]
        measured = engine_ms(voters, images)
        lines.append(f"| {' + '.join(choice.members)} | {choice.accuracy:.2%} | {choice.cost:.2f} | {measured:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="test images to send")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/ensembles.md")
    arguments = parser.parse_args()
    tables = "\n".join(measure(arguments.images)) + "\n"
    print(tables)
    if arguments.write:
        write_between(PAGE, BEGIN, tables, END)


if __name__ == "__main__":
    main()
