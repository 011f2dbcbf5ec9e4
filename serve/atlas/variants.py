"""Variants of an artifact that a sweep measures: its own graph, or an engine built from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convoy.engine_names import Precision
from models.artifact import IMAGE_MODEL, Artifact, Manifest
from models.compile.accuracy import top1_share
from models.datasets import PACKAGES, load_data
from models.engines.backends.registry import Backend
from models.engines.build.builder import build_engine
from models.engines.build.eval_data import find_eval_source
from models.engines.spec import EngineSpec
from models.engines.store.store import Store
from serve.atlas.data import Accuracy, Network
from serve.executors.engine_selection import OWN_ENGINE, OWN_PRECISION, is_own

HOW = "measured by convoy atlas on the test images, in this engine and precision"


@dataclass(frozen=True)
class Variant:
    """An artifact in an engine and a precision."""

    artifact: Artifact
    backend: Backend
    precision: Precision

    @property
    def own(self) -> bool:
        """Whether it is the artifact's own graph, which needs no building."""
        return is_own(self.backend.name, self.precision)

    @property
    def network(self) -> Network:
        """The network before it is measured. Published accuracy holds for fp32, which is equal in every engine."""
        manifest = self.artifact.manifest
        return Network(
            name=manifest.name,
            dataset=manifest.dataset,
            engine=OWN_ENGINE if self.own else f"{self.backend.name} {self.backend.version.partition('-')[0]}",
            precision=self.precision,
            params=manifest.params,
            macs=manifest.macs,
            accuracy=accuracy_of(manifest) if self.precision == OWN_PRECISION else None,
        )

    def ready(self, store: Store, threads: int) -> tuple[Path, Network]:
        """The graph to load, built into the store when it is missing, and the network with its accuracy.

        The accuracy of other precisions than fp32 is measured when there are test images. Raises ConfigError and
        ArtifactError.
        """
        if self.own:
            return self.artifact.image_model, self.network
        spec = EngineSpec(self.artifact, self.backend, self.precision, find_eval_source(self.artifact))
        spec.check()
        graph = (store.find(spec) or build_engine(spec, store)).folder / IMAGE_MODEL
        manifest = self.artifact.manifest
        if self.precision == OWN_PRECISION or manifest.dataset not in PACKAGES:
            return graph, self.network
        engine = self.backend.load(graph, threads, self.precision)
        top1 = top1_share(engine, load_data(manifest.dataset).test, manifest.preprocessing)
        return graph, self.network.model_copy(update={"accuracy": Accuracy(top1=top1, kind="measured", how=HOW)})


def accuracy_of(manifest: Manifest) -> Accuracy | None:
    """The accuracy in the manifest, measured on test images or published with the weights; None without one."""
    top1, how = manifest.accuracy.get("top1"), str(manifest.accuracy.get("how", ""))
    if not isinstance(top1, float):
        return None
    return Accuracy(top1=top1, kind="measured" if how.startswith("measured") else "published", how=how)
