"""An atlas as the JSON document of its charts, and as an HTML page in one file."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from convoy.errors import ConfigError
from convoy.files import write_file
from serve.atlas.choice import candidates, pareto_front
from serve.atlas.data import Atlas, Cell
from serve.atlas.findings import findings, operations_line

PAGE = Path(__file__).resolve().parents[1] / "http" / "page"
HEAD = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Convoy: atlas</title>'
TITLES = {
    ("imagenet1k", "published"): "ImageNet, published accuracies",
    ("cifar10", "measured"): "CIFAR-10, accuracies measured here",
    ("mnist", "measured"): "MNIST, accuracies measured here",
}


def document(atlas: Atlas) -> dict[str, Any]:
    """The document of /v1/atlas: flat cells in seconds, joules, watts and bytes; groups of comparable accuracies."""
    groups = _groups(atlas)
    front = {key for group in groups for key in _front(atlas, group["dataset"], group["kind"])}
    lines = {batch: operations_line(atlas, batch) for batch in sorted({cell.batch for cell in atlas.cells})}
    return {
        "machine": atlas.machine.model_dump(),
        "cells": [_cell(atlas, cell, cell.network in front) for cell in atlas.cells],
        "failures": [failure.model_dump() for failure in atlas.failures],
        "findings": [asdict(finding) for finding in findings(atlas)],
        "groups": groups,
        "lines": [{"batch": batch, "r2": line.r2} for batch, line in lines.items() if line and batch in (1, 16)],
    }


def _cell(atlas: Atlas, cell: Cell, front: bool) -> dict[str, Any]:
    network, power = atlas.network(cell.network), cell.power
    return {
        "network": network.key,
        "name": network.label,
        "plain": network.plain,
        "dataset": network.dataset,
        "params": network.params,
        "operations": 2 * network.macs,
        "top1": network.accuracy.top1 if network.accuracy else None,
        "kind": network.accuracy.kind if network.accuracy else None,
        "how": network.accuracy.how if network.accuracy else None,
        "batch": cell.batch,
        "seconds": cell.seconds_per_image,
        "low": cell.seconds.low / cell.batch,
        "high": cell.seconds.high / cell.batch,
        "memory": cell.memory_bytes,
        "watts": power.watts - power.idle_watts if power else None,
        "joules": power.joules_per_image if power else None,
        "method": power.method if power else None,
        "source": power.source if power else None,
        "front": front,
    }


def _front(atlas: Atlas, dataset: str, kind: str) -> set[str]:
    """The Pareto front of a group at batch size 1."""
    known = (
        candidate
        for candidate in candidates(atlas, dataset)
        if candidate.network.accuracy and candidate.network.accuracy.kind == kind and candidate.cell.batch == 1
    )
    return {candidate.network.key for candidate in pareto_front(known)}


def _groups(atlas: Atlas) -> list[dict[str, str]]:
    found = {(network.dataset, network.accuracy.kind) for network in atlas.networks if network.accuracy}
    return [
        {"dataset": dataset, "kind": kind, "title": TITLES.get((dataset, kind), f"{dataset}, accuracies {kind}")}
        for dataset, kind in sorted(found, reverse=True)
    ]


def check_page(path: Path) -> None:
    """Raises ConfigError for a file that exists and is not a page of an atlas."""
    if path.exists() and not path.read_bytes().startswith(HEAD.encode()):
        raise ConfigError(f"{path} is not an atlas page and would be overwritten; name another data file with --out")


def write_page(atlas: Atlas, path: Path) -> None:
    """Writes one self-contained file with libraries, charts and figures; its policy allows no other sources."""
    libraries = [(PAGE / "libraries" / name).read_text() for name in ("d3.min.js", "plot.umd.min.js")]
    draw = 'drawAtlas(document.getElementById("charts"), JSON.parse(document.getElementById("atlas").textContent));'
    module = (PAGE / "atlas.js").read_text() + draw
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in (*libraries, module))
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"
    figures = orjson.dumps(document(atlas)).decode().replace("<", "\\u003c")
    scripts = "".join(f"<script>{library}</script>" for library in libraries)
    write_file(
        path,
        f'{HEAD}<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{(PAGE / 'page.css').read_text()}</style></head>"
        f'<body><main><h1>Atlas</h1><div id="charts"></div></main>'
        f'<script id="atlas" type="application/json">{figures}</script>{scripts}<script type="module">{module}</script>'
        f"</body></html>",
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
