"""Compares int8 with fp32 through the server, on photos, and each with a tight loop of decoding and running alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.load import wrk
from benchmarks.nets import Net, photos
from benchmarks.sections import OCTETS, Row, Setup, classify, model, profiled, tight_loop
from benchmarks.server import Server, serving
from convoy.engine_names import Precision
from convoy.errors import ArtifactError
from models.artifact import BUNDLED, Artifact
from models.engines.backends.registry import Backend, installed_backends
from models.engines.build.builder import build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.spec import EngineSpec
from models.engines.store.store import Store
from models.engines.store.stored_engine import StoredEngine

BUNDLED_NETS = ("squeezenet1_1-imagenet", "resnet20-cifar10", "vgg-cifar10", "wide-resnet-cifar10")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
CONNECTIONS = 16
ROUNDS = 2
LOAD_SECONDS = 4  # covers the sampling of the profile
LOOP_SECONDS = 2


@dataclass(frozen=True)
class Contender:
    """A net in a stored engine, served under its own name."""

    net: Net
    backend: Backend
    precision: Precision
    stored: StoredEngine

    @property
    def name(self) -> str:
        return f"{self.net.name}-{self.backend.name}-{self.precision}"

    def config(self) -> Row:
        engine = {"engine": self.backend.name, "precision": self.precision}
        return model(self.net, self.name, **engine, threads=2, target_ms=2000)

    def tight_loop(self, seconds: float) -> float:
        engine = self.backend.load(self.stored.folder / "image.onnx", 2, self.precision)
        return tight_loop(self.net, seconds, engine=engine)


def precision(setup: Setup) -> list[Row]:
    """Each net in fp32 and int8 in every engine, in turns: requests/s over HTTP, then images/s of the tight loop."""
    store = Store(setup.scratch / "engines")
    served = list(contenders(setup, store))
    with serving(setup.scratch, [contender.config() for contender in served], engines=str(store.root)) as server:
        turns = [[_turn(server, contender) for contender in served] for _ in range(ROUNDS)]
    rows = [_row(contender, [turn[place] for turn in turns]) for place, contender in enumerate(served)]
    return [row | {"of_fp32": row["rps"] / _fp32(row, rows)} for row in rows]


def contenders(setup: Setup, store: Store) -> Iterator[Contender]:
    """Builds every net in every engine. Engines that the accuracy check refuses are left out."""
    calibrate = photos(setup.scratch / "photos")
    nets = [setup.resnet18(), *(_bundled(name, setup) for name in BUNDLED_NETS)]
    for net in nets:
        own = find_eval_source(net.artifact)
        for backend in installed_backends():
            for wanted in PRECISIONS:
                spec = EngineSpec(net.artifact, backend, wanted, own or find_eval_source(net.artifact, calibrate))
                try:
                    yield Contender(net, backend, wanted, build_engine(spec, store))
                except ArtifactError as error:
                    print(f"{net.name}, {backend.name} {wanted}: {error}")


def _bundled(name: str, setup: Setup) -> Net:
    return Net(name, Artifact.load(BUNDLED / name), setup.resnet18().image, gray=False)


@dataclass(frozen=True)
class Turn:
    """Requests/s, failed requests, images/s of the tight loop (`loop`), and the event loop's share of CPU time (`outside`)."""

    rps: float
    failed: int
    loop: float
    outside: float


def _turn(server: Server, contender: Contender) -> Turn:
    load = partial(wrk, classify(server, contender.name), contender.net.image, CONNECTIONS, LOAD_SECONDS, OCTETS)
    measured = profiled(server, load)
    profile = measured["profile"]
    (answered,) = profile["models"]
    (loop_busy,) = (resource["busy"] for resource in profile["resources"] if resource["name"] == "event loop")
    rps = answered["requests_per_second"]
    cores = rps * measured["cpu_ms_per_request"] / 1000
    return Turn(rps, measured["failed"], contender.tight_loop(LOOP_SECONDS), loop_busy / cores)


def _row(contender: Contender, turns: Sequence[Turn]) -> Row:
    rps, loop, outside = (
        statistics.median(getattr(turn, name) for turn in turns) for name in ("rps", "loop", "outside")
    )
    return {
        "net": contender.net.name,
        "engine": contender.backend.name,
        "precision": contender.precision,
        "gate": contender.stored.status,
        "rps": rps,
        "failed": sum(turn.failed for turn in turns),
        "loop": loop,
        "of_loop": statistics.median(turn.rps / turn.loop for turn in turns),
        "outside": outside,
    }


def _fp32(row: Row, rows: Sequence[Row]) -> float:
    """Requests/s of the same net and engine in fp32."""
    same = (row["net"], row["engine"], "fp32")
    return next(float(other["rps"]) for other in rows if (other["net"], other["engine"], other["precision"]) == same)
