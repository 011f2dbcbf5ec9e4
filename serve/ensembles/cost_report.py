"""What an ensemble or cascade asks of its members and what an image costs, as `convoy explain` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.artifact import Manifest
from models.ensembles.views import count_looks
from serve.batching.latency_curve import LatencyCurve
from serve.config.ensembles import EnsembleConfig, MemberConfig
from serve.ensembles.factory import CompositionConfig


@dataclass(frozen=True)
class Known:
    """What is known of a member: its manifest, and once it runs its latency curve and batch limit."""

    manifest: Manifest
    curve: LatencyCurve | None = None
    batch: int = 1

    def engine_seconds(self, rows: int) -> float | None:
        """Engine time of `rows` alone in their batches; None before it was measured."""
        if self.curve is None:
            return None
        full, rest = divmod(rows, self.batch)
        return full * self.curve.predict(self.batch) + (self.curve.predict(rest) if rest else 0.0)


def plan_document(
    config: CompositionConfig, stages: Sequence[tuple[str, EnsembleConfig]], known: Mapping[str, Known]
) -> dict[str, Any]:
    """The plan as a JSON-ready document.

    Engine milliseconds and MACs of a stage are added up from the first one on: what an image costs that gets so far.
    """
    macs, seconds = 0, 0.0
    documents = []
    for name, ensemble in stages:
        members = [_member(member, known[member.model]) for member in ensemble.members]
        times = [known[one.model].engine_seconds(count_looks(one.views)) for one in ensemble.members]
        macs += sum(member["macs_per_image"] for member in members)
        seconds += sum(time or 0.0 for time in times)
        documents.append(
            {
                "stage": name,
                "combine": ensemble.combine,
                "min_members": ensemble.min_members,
                "members": members,
                "macs_per_image": macs,
                "engine_ms_per_image": None if None in times else _milliseconds(seconds),
            }
        )
    return {
        "name": config.name,
        "version": config.version,
        "kind": config.kind,
        "deadline_ms": config.deadline_ms,
        "decodes_per_image": 1,
        "stages": documents,
    }


def _member(config: MemberConfig, known: Known) -> dict[str, Any]:
    rows = count_looks(config.views)
    seconds = known.engine_seconds(rows)
    return {
        "model": config.model,
        "views": list(config.views),
        "weight": config.weight,
        "calibrated": config.calibrated,
        "rows_per_image": rows,
        "macs_per_image": rows * known.manifest.macs,
        "engine_ms_per_image": None if seconds is None else _milliseconds(seconds),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
