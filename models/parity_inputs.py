"""Inputs for the comparison of an artifact's graphs with their source network, and checks of its outputs and weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ArtifactError
from models.artifact import Preprocessing
from models.engines.logits import Logits, all_have_distribution

RANDOM, PLAIN = "random images", "a black and a white image"


def parity_images(steps: Preprocessing, batches: Sequence[int]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """(description, UINT8 [n, size, size, channels]): random images for each batch size, then a black and a white one.

    The server probes engines with black images, and a network that divides by an image's standard deviation has no finite
    output for them.
    """
    generator = np.random.default_rng(1)
    shape = (steps.size, steps.size, steps.channels)
    for batch in batches:
        yield RANDOM, generator.integers(0, 256, (batch, *shape), np.uint8)
    yield PLAIN, np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)])


def check_answers(logits: Logits, what: str, source: str) -> None:
    """Raises ArtifactError for logits [n, classes] with a row whose softmax is not a distribution."""
    if not all_have_distribution(logits):
        raise ArtifactError(
            f"{source} answers {what} with NaN or infinity: look for weights that are not finite, "
            "for divisions by 0 and for logarithms of 0, and export it again"
        )


def check_weights(name: str, values: NDArray[Any], source: str) -> None:
    """Raises ArtifactError for NaN, and for infinity among other numbers. Only infinity and 0 are a bound or a mask."""
    finite = np.isfinite(values)
    if finite.all():
        return
    if np.isnan(values).any() or values[finite].any():
        raise ArtifactError(f"{source}: {name} holds NaN or infinity; train or export the network again")
