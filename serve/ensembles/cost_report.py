"""Cost of an image by member and stage of an ensemble or cascade, for `convoy explain`."""

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
    """A member's manifest and, once measured, its latency curve and batch limit."""

    manifest: Manifest
    curve: LatencyCurve | None = None
    batch: int = 1

    def engine_seconds(self, rows: int) -> float | None:
        """Engine seconds of `rows` in batches without other rows; None before it is measured."""
        if self.curve is None:
            return None
        full, rest = divmod(rows, self.batch)
        return full * self.curve.predict(self.batch) + (self.curve.predict(rest) if rest else 0.0)


def plan_document(
    config: CompositionConfig, stages: Sequence[tuple[str, EnsembleConfig]], known: Mapping[str, Known]
) -> dict[str, Any]:
    """A JSON-ready document of the stages, their members and costs.

    Engine milliseconds and MACs of a stage include the stages before it: the cost of an image that reaches the stage.
    """
    macs, seconds = 0, 0.0
    documents = []
    for name, ensemble in stages:
        members = [_member(member, known[member.model]) for member in ensemble.members]
        times = [known[member.model].engine_seconds(count_looks(member.views)) for member in ensemble.members]
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
