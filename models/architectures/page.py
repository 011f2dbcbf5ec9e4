"""`docs/architectures.md`: one table, every cell from data that a command wrote."""

from __future__ import annotations

import json
from pathlib import Path

from models.architectures.facts import Facts
from models.artifact import BUNDLED, MANIFEST, Manifest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
PARITY = Path(__file__).resolve().parents[1] / "parity.json"

HEAD = """# Architectures

The classic CNN architectures, LeNet-5 to SqueezeNet and ResNeXt, each built from its paper in `models/zoo`, one family per
file. `python -m models.zoo` writes this page, and a test checks it; no number is typed by hand.

- **parameters**, **MACs** (multiply-accumulates of convolutions and linear layers) and **activations** (their outputs)
  are counted on the network, for one image.
- **published** is the top-1 accuracy in the named source. **measured** is the accuracy of our own checkpoint, through
  the served artifact, with the data set and the number of images. Names ending in `_cifar` are our small variants
  for 32x32 images, designed to be trained on a CPU.
- **parity** is the largest difference between the logits of the ONNX graph and of torch, relative to the largest logit, with
  random weights, at two batch sizes that the export did not use (`python -m models.zoo.parity`); – means not measured yet.
- **served** is the name of the model in the default catalog.

`convoy models NAME` prints a network layer by layer.
"""

COLUMNS = (
    "architecture", "family", "paper", "year", "input", "parameters", "MACs", "activations", "published", "measured", "parity",
    "served",
)  # fmt: skip


def render_page(facts: dict[str, Facts]) -> str:
    """The text of the page."""
    parity: dict[str, float] = json.loads(PARITY.read_text())
    manifests = bundled_manifests()
    rows = [_row(one, [m for m in manifests if m.architecture == one.name], parity) for one in facts.values()]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return HEAD + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def bundled_manifests() -> list[Manifest]:
    """Manifests of the artifacts in the package."""
    return [Manifest.from_json(path.read_text()) for path in sorted(BUNDLED.glob(f"*/{MANIFEST}"))]


def _row(facts: Facts, manifests: list[Manifest], parity: dict[str, float]) -> tuple[str, ...]:
    published = "" if facts.published_top1 is None else f"{facts.published_top1:.2%} ({facts.published_by})"
    difference = parity.get(facts.name)
    return (
        f"`{facts.name}`", facts.family, facts.paper, str(facts.year), "x".join(map(str, facts.input)),
        f"{facts.params:,}", f"{facts.macs:,}", f"{facts.activations:,}", published,
        "; ".join(map(_measured, manifests)), "–" if difference is None else f"{difference:.0e}",
        ", ".join(f"`{one.name}`" for one in manifests),
    )  # fmt: skip


def _measured(manifest: Manifest) -> str:
    accuracy = manifest.accuracy
    return f"{accuracy['top1']:.2%} ({manifest.dataset}, {accuracy['images']} images)"
