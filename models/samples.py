"""`python -m models.samples`: writes the bundled sample images again, from the test images of the data sets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

from models.datasets import DataSet, load_data

FOLDER = Path(__file__).parent / "bundled" / "samples"
# Positions in the test set, chosen by hand for variety, and the model that classifies them correctly.
CHOSEN = {"mnist": ("lenet5-mnist", (0, 1, 3, 4, 61)), "cifar10": ("resnet20-cifar10", (1, 3, 10, 12, 23, 28))}
# From scikit-image's data folder; licences in samples/NOTICE.
PHOTOS = (
    ("chelsea.png", "a cat having a striped coat", "CC0, Stefan van der Walt"),
    ("coffee.png", "espresso", "CC0, Rachel Michetti"),
    ("camera.png", "tripod", "CC0, Lav Varshney"),
)


def write_samples(folder: Path) -> None:
    """Writes the digits and CIFAR-10 images, and the index of all samples."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        entry for name, (model, chosen) in CHOSEN.items() for entry in _write(load_data(name), model, chosen, folder)
    ]
    entries += [
        {
            "file": file,
            "model": "squeezenet1_1-imagenet",
            "label": label,
            "source": f"scikit-image data; {licence}",
        }
        for file, label, licence in PHOTOS
    ]
    (folder / "index.json").write_text(json.dumps({"samples": entries}, indent=1) + "\n")


def _write(data: DataSet, model: str, chosen: tuple[int, ...], folder: Path) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = []
    for position in chosen:
        label = data.labels[data.test.labels[position]]
        file = f"{data.name}-{position}-{label}.png"
        Image.fromarray(data.test.images[position].squeeze()).save(folder / file, optimize=True)
        source = f"{data.name} test image {position}"
        entries.append({"file": file, "model": model, "label": label, "source": source})
    return entries


def main() -> None:
    """Writes the sample images again."""
    argparse.ArgumentParser(prog="python -m models.samples", description=__doc__).parse_args()
    write_samples(FOLDER)


if __name__ == "__main__":
    main()
