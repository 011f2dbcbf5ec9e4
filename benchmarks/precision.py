"""int8 beside fp32 through the server, on photos, and each beside a tight loop of its own decoding and running."""

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
LOAD_SECONDS = 4  # as long as the profile looks
LOOP_SECONDS = 2


@dataclass(frozen=True)
class Contender:
    """A net in an engine of the store, served under a name of its own."""

    net: Net
    backend: Backend
    precision: Precision
    entry: StoredEngine

    @property
    def name(self) -> str:
        return f"{self.net.name}-{self.backend.name}-{self.precision}"

    def config(self) -> Row:
        engine = {"engine": self.backend.name, "precision": self.precision}
        return model(self.net, self.name, **engine, threads=2, target_ms=2000)

    def tight_loop(self, seconds: float) -> float:
        engine = self.backend.load(self.entry.folder / "image.onnx", 2, self.precision)
        return tight_loop(self.net, seconds, engine=engine)


def precision(setup: Setup) -> list[Row]:
    """Each net in fp32 and int8 on every engine, in turns: requests/s by HTTP, then images/s of the loop."""
    store = Store(setup.scratch / "engines")
    found = list(contenders(setup, store))
    with serving(setup.scratch, [one.config() for one in found], engines=str(store.root)) as server:
        turns = [[_turn(server, one) for one in found] for _ in range(ROUNDS)]
    rows = [_row(one, [turn[place] for turn in turns]) for place, one in enumerate(found)]
    return [row | {"of_fp32": row["rps"] / _fp32(row, rows)} for row in rows]


def contenders(setup: Setup, store: Store) -> Iterator[Contender]:
    """Every net in every engine that the gate lets pass, built."""
    calibrate = photos(setup.scratch / "photos")
    nets = [setup.resnet18(), *(_bundled(name, setup) for name in BUNDLED_NETS)]
    for net in nets:
        own = find_eval_source(net.artifact)
        for backend in installed_backends():
            for one in PRECISIONS:
                order = EngineSpec(net.artifact, backend, one, own or find_eval_source(net.artifact, calibrate))
                try:
                    yield Contender(net, backend, one, build_engine(order, store))
                except ArtifactError as error:
                    print(f"{net.name}, {backend.name} {one}: {error}")


def _bundled(name: str, setup: Setup) -> Net:
    return Net(name, Artifact.load(BUNDLED / name), setup.resnet18().image, gray=False)


@dataclass(frozen=True)
class Turn:
    """Requests/s and failed ones; images/s of the tight loop; the event loop's share of the server's CPU time."""

    rps: float
    failed: int
    loop: float
    outside: float


def _turn(server: Server, one: Contender) -> Turn:
    found = profiled(server, partial(wrk, classify(server, one.name), one.net.image, CONNECTIONS, LOAD_SECONDS, OCTETS))
    profile = found["profile"]
    (answered,) = profile["models"]
    (loop_busy,) = (one["busy"] for one in profile["resources"] if one["name"] == "event loop")
    rps = answered["requests_per_second"]
    cores = rps * found["cpu_ms_per_request"] / 1000
    return Turn(rps, found["failed"], one.tight_loop(LOOP_SECONDS), loop_busy / cores)


def _row(one: Contender, turns: Sequence[Turn]) -> Row:
    rps, loop, outside = (
        statistics.median(getattr(turn, name) for turn in turns) for name in ("rps", "loop", "outside")
    )
    return {
        "net": one.net.name,
        "engine": one.backend.name,
        "precision": one.precision,
        "gate": one.entry.status,
        "rps": rps,
        "failed": sum(turn.failed for turn in turns),
        "loop": loop,
        "of_loop": statistics.median(turn.rps / turn.loop for turn in turns),
        "outside": outside,
    }


def _fp32(row: Row, rows: Sequence[Row]) -> float:
    """Requests/s of the same net and engine in fp32."""
    same = (row["net"], row["engine"], "fp32")
    return next(float(one["rps"]) for one in rows if (one["net"], one["engine"], one["precision"]) == same)
