"""`python -m benchmarks.ensembles`: measures ensembles, views and cascades on the CIFAR-10 test images, through a
real server.

Everything is selected and fitted on the validation set; the 10 000 test images are only used for the report. `--write` puts
the tables into docs/ensembles.md.
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
IDLE_WATTS, BUSY_WATTS = 15.0, 45.0  # declared, not measured: only ratios of joules are meaningful

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
    """What is served: the best single network, the same with `flip`, the best set and a cascade; and the Pareto front."""

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
    """Scores every model alone, with flip, and with shift and flip, on the validation set. Returns also its labels."""
    validation = load_data("cifar10").held_out
    images, judged = list(validation.images), []
    choices: tuple[tuple[View, ...], ...] = (("identity",), ("flip",), ("shift", "flip"))
    for model in cifar_models():
        for views in choices:
            voter = Voter(ModelConfig(name=model), views, False, threads, PIXELS)
            scores, cost = voter.scores(images), engine_ms([voter], images)
            name = model if views == ("identity",) else f"{model} {' '.join(views)}"
            judged.append(Judged(name, model, views, scores, cost, accuracy_of(scores, validation.labels)))
    return judged, validation.labels


def choose(judged: Sequence[Judged], labels: NDArray[np.int64]) -> Plan:
    """Selects what is served, on the validation set only."""
    by_name = {candidate.name: candidate for candidate in judged}
    alone = [candidate for candidate in judged if candidate.views == ("identity",)]
    single = max(alone, key=lambda candidate: candidate.accuracy)
    flip = by_name[f"{single.model} flip"]
    cheap = [candidate for candidate in judged if candidate.views in (("identity",), ("flip",))]
    choices = select_greedily(
        [Option(candidate.name, candidate.scores, candidate.ms) for candidate in cheap], labels, most=3
    )
    largest_set = max(len(choice.members) for choice in choices)
    best = max((choice for choice in choices if len(choice.members) == largest_set), key=lambda choice: choice.accuracy)
    pairs = []
    last = max(judged, key=lambda candidate: candidate.accuracy)
    for first in judged:
        if first.ms < last.ms:
            stages = [Candidate(stage.name, stage.scores, stage.ms) for stage in (first, last)]
            pairs.append((first, fit_for_accuracy(stages, labels, last.accuracy)))
    first, fitted = min(pairs, key=lambda pair: pair[1].cost)
    members = tuple(by_name[name] for name in best.members)
    return Plan(single, flip, members, (first, last), fitted, pareto_front(choices))


def configuration(plan: Plan, slow: Path, folder: Path) -> Settings:
    first, last = plan.cascade
    slowed = [member.member() for member in plan.best[:2]] + [{"model": "slow"}]
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
                {"name": "best", "members": [member.member() for member in plan.best]},
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
    """Probabilities [n, 10] of all images, and the number of images that each member classified."""

    def ask(start: int) -> dict[str, Any]:
        images = [base64.b64encode(body).decode() for body in bodies[start : start + IMAGES_PER_REQUEST]]
        answer = client.post(f"/v1/models/{model}/classify", json={"images": images, "top_k": 10})
        document: dict[str, Any] = answer.raise_for_status().json()
        return document

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        documents = list(pool.map(ask, range(0, len(bodies), IMAGES_PER_REQUEST)))
    rows = [prediction["classes"] for document in documents for prediction in document["predictions"]]
    probabilities = np.zeros((len(rows), 10))
    for row, classes in enumerate(rows):
        indices = [entry["index"] for entry in classes]
        probabilities[row, indices] = [entry["probability"] for entry in classes]
    images_by_member: dict[str, float] = {}
    for document in documents:
        for position, member in enumerate(document.get("members", [])):
            key = f"{position} {member['model']}"
            images_by_member[key] = images_by_member.get(key, 0) + member["images"]
    return probabilities, images_by_member


def time_singly(client: httpx.Client, model: str, bodies: Sequence[bytes]) -> Mapping[str, NDArray[np.float64]]:
    """Milliseconds of requests with one image each, one after another: total, decoding, and the members' engines."""
    rows = []
    for body in bodies:
        start = time.perf_counter()
        document = client.post(f"/v1/models/{model}/classify", content=body).raise_for_status().json()
        total = (time.perf_counter() - start) * 1000
        engines = sum(member["engine_ms"] for member in document.get("members", []))
        rows.append((total, document["timings_ms"]["decode"], engines))
    return dict(zip(("total", "decode", "engine"), np.array(rows).T, strict=True))


def offline(plan: Plan, threads: int, images: NDArray[np.uint8]) -> dict[str, Rows]:
    """The expected probabilities of `flip` and of the best set: computed from the engines' logits, in double precision."""
    return {
        "flip": _mean_probability(plan.flip, threads, images),
        "best": np.mean([_mean_probability(member, threads, images) for member in plan.best], axis=0),
    }


def _mean_probability(judged: Judged, threads: int, images: NDArray[np.uint8]) -> Rows:
    engine = load_engine(BUNDLED / judged.model / IMAGE_MODEL, threads)
    crops = [images] if judged.views == ("identity",) else [images, images[:, :, ::-1]]
    distributions = []
    for rows in crops:
        logits = np.concatenate([engine.run(np.ascontiguousarray(batch)) for batch in np.array_split(rows, 100)])
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        distributions.append(powers / powers.sum(axis=1, keepdims=True))
    return np.asarray(np.mean(distributions, axis=0))


def combining_share(plan: Plan) -> tuple[float, float]:
    """Milliseconds for combining the votes of one image, and their share of the members' engine time."""
    votes = np.concatenate([member.scores[np.newaxis, :1] for member in plan.best])
    weights = np.ones(len(votes))
    start = time.perf_counter()
    for _ in range(2000):
        combine(votes, weights, "mean_probability")
    each = (time.perf_counter() - start) / 2000 * 1000
    return each, each / sum(member.ms for member in plan.best)


def accuracy_of(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
    return float((scores.argmax(axis=1) == labels).mean())


def joules(engine_milliseconds: float) -> float:
    """Millijoules above idle, by the declared watts; a running engine is assumed to use every core."""
    return engine_milliseconds * (BUSY_WATTS - IDLE_WATTS)


def measure(images: int) -> list[str]:
    threads = available_cores()
    judged, validation_labels = judge(threads)
    plan = choose(judged, validation_labels)
    test = load_data("cifar10").test
    pixels, labels = test.images[:images], test.labels[:images]
    bodies = encoded(pixels)
    with tempfile.TemporaryDirectory() as folder:
        slow = write_slow_copy(BUNDLED / plan.single.model, Path(folder) / "slow", SLOW_SECONDS)
        with serving(configuration(plan, slow, Path(folder))) as client:
            names = ("single", "flip", "best", "last", "cascade", "calibrated")
            answers = {name: classify_all(client, name, bodies) for name in names}
            times = {name: time_singly(client, name, bodies[:TIMED]) for name in names}
            slowed = time_singly(client, "slowed", bodies[:SLOWED])["total"]
    return [
        *_accuracy_table(plan, answers, times, labels),
        "",
        *_claims(plan, answers, times, slowed, offline(plan, threads, pixels), labels),
        "",
        *_front_table(plan, {candidate.name: candidate for candidate in judged}, threads),
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
        "flip": "the same with the mirror image",
        "best": "best set: " + " + ".join(member.name for member in plan.best),
        "last": f"largest member of the cascade: {last.name}",
        "cascade": f"cascade: {first.name}, then {last.name} below a margin of {plan.fitted.thresholds[0]:.3f}",
    }
    base = accuracy_of(answers["single"][0], labels)
    lines = [
        "| served model | top-1 | gain, points | median ms | extra ms | engine ms | extra mJ (modelled) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in titles.items():
        accuracy = accuracy_of(answers[name][0], labels)
        total, engine = (float(np.median(times[name][key])) for key in ("total", "engine"))
        engine = float(np.mean(times[name]["engine"])) if name == "cascade" else engine
        extra_ms = total - float(np.median(times["single"]["total"]))
        extra_mj = joules(engine - float(np.median(times["single"]["engine"])))
        lines.append(
            f"| {title} | {accuracy:.2%} | {100 * (accuracy - base):+.2f} | {total:.2f} | {extra_ms:+.2f} "
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
    images_by_stage = list(answers["cascade"][1].values())
    passed_on = images_by_stage[-1] / images_by_stage[0]
    difference = max(float(np.abs(answers[name][0] - rows).max()) for name, rows in expected.items())
    each, share = combining_share(plan)
    before, after = (
        expected_calibration_error(np.log(np.maximum(answers[name][0], 1e-30)), labels)
        for name in ("single", "calibrated")
    )
    decode = {name: float(np.median(times[name]["decode"])) for name in ("single", "best")}
    p99 = float(np.percentile(slowed, 99))
    return [
        "| target | measured |",
        "| --- | --- |",
        f"| cascade within 0.2 points of its largest member | {100 * (cascade - last):+.2f} points |",
        f"| cascade at no more than 60 % of the engine time of its largest member | {engine:.0%}; "
        f"{passed_on:.1%} of the images reached the last stage |",
        f"| combined answers equal an offline NumPy computation to 1e-5 | largest difference {difference:.1e} over "
        f"{len(labels)} images |",
        f"| p99 with a member slowed to {SLOW_SECONDS:g} s under the deadline of {DEADLINE_MS} ms + 10 % | {p99:.1f} ms |",
        f"| one decode per request | decode stage {decode['single']:.3f} ms for one net, {decode['best']:.3f} ms for the set |",
        f"| combining costs at most 5 % of the members' run time | {each * 1000:.0f} µs, {share:.2%} |",
        f"| calibration error before and after its temperature | {before:.2%}, {after:.2%} |",
    ]


def _front_table(plan: Plan, judged: Mapping[str, Judged], threads: int) -> list[str]:
    images = list(load_data("cifar10").held_out.images[:50])
    lines = [
        "| set on the Pareto front | validation top-1 | predicted engine ms | measured ms |",
        "| --- | --- | --- | --- |",
    ]
    for choice in plan.front:
        chosen = [judged[name] for name in choice.members]
        voters = [Voter(ModelConfig(name=member.model), member.views, False, threads, PIXELS) for member in chosen]
        measured = engine_ms(voters, images)
        lines.append(f"| {' + '.join(choice.members)} | {choice.accuracy:.2%} | {choice.cost:.2f} | {measured:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, default=10_000, help="number of test images to send  [default: %(default)s]"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/ensembles.md")
    arguments = parser.parse_args()
    tables = "\n".join(measure(arguments.images)) + "\n"
    print(tables)
    if arguments.write:
        write_between(PAGE, BEGIN, tables, END)


if __name__ == "__main__":
    main()
