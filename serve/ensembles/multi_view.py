"""Decodes an image once for several networks, and makes the views that each of them needs (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.errors import InvalidInput, TooLarge
from models.artifact import Preprocessing
from models.ensembles.views import View, arrange, count_looks, finest_short, looks_at
from models.images.decoder import SMALL_SIDE, Decoded, Decoder
from models.images.headers import Probe
from models.images.jpeg import ImageBytes
from models.images.resize import Box, Pixels

INLINE_VIEWS = 16  # making more of them takes longer than passing the image to a thread


@dataclass(frozen=True)
class Geometry:
    """The geometry of a network's input and its views. Members with equal geometry share rows: the graph normalises."""

    channels: int
    resize: int
    size: int
    views: tuple[View, ...]

    @classmethod
    def of(cls, steps: Preprocessing, views: tuple[View, ...]) -> Geometry:
        """The geometry of a model's preprocessing, with the views of a member."""
        return cls(steps.channels, steps.resize, steps.size, views)

    @property
    def steps(self) -> Preprocessing:
        """Preprocessing of one image, without normalization."""
        return Preprocessing(self.channels, self.resize, self.size, (), ())

    @property
    def view_count(self) -> int:
        """Rows per image."""
        return count_looks(self.views)


@dataclass(frozen=True)
class Views:
    """The views of a request's images, per geometry: UINT8 [images, views, size, size, channels]."""

    rows: tuple[Pixels, ...]

    def __len__(self) -> int:
        return len(self.rows[0])

    def of(self, images: NDArray[np.bool_]) -> Views:
        """The views of the images that the mask [images] selects."""
        return Views(tuple(rows[images] for rows in self.rows))


class ViewsDecoder:
    """Decodes an image once, at the highest resolution that any geometry needs, and makes its views. Thread-safe.

    A single geometry with the view `identity` gives the same bytes as `Decoder`.
    """

    def __init__(self, geometries: Sequence[Geometry], max_pixels: int) -> None:
        """`max_pixels`: the largest image, width times height. Raises ConfigError as `Decoder` does."""
        self._geometries = tuple(geometries)
        self._max_pixels = max_pixels
        channels = max(geometry.channels for geometry in geometries)
        finest = max(finest_short(geometry.views, geometry.steps) for geometry in geometries)
        size = max(geometry.size for geometry in geometries)
        self._decoder = Decoder(Preprocessing(channels, finest, size, (), ()), max_pixels)
        self._inline = sum(geometry.view_count for geometry in geometries) <= INLINE_VIEWS and size <= SMALL_SIDE

    @property
    def channels(self) -> int:
        """1 when all members take grey images, else 3."""
        return max(geometry.channels for geometry in self._geometries)

    @property
    def most_views(self) -> int:
        """The most rows that one image puts into the queue of a member."""
        return max(geometry.view_count for geometry in self._geometries)

    def probe(self, image: ImageBytes | Pixels) -> Probe:
        """As `Decoder.probe`; the format of an array is "pixels". Small: making the views takes less time than a thread."""
        if isinstance(image, np.ndarray):
            pixels = image.shape[0] * image.shape[1]
            small = self._inline and max(image.shape) <= SMALL_SIDE
            return Probe("pixels", pixels if pixels <= self._max_pixels else 0, small)
        probe = self._decoder.probe(image)
        return probe if self._inline else probe._replace(small=False)

    def decode(self, image: ImageBytes | Pixels, probe: Probe | None = None) -> Views:
        """The views of one encoded image, or of pixels UINT8 [height, width, channels]. Blocks. Raises as `Decoder.decode`."""
        if isinstance(image, np.ndarray):
            return self._make_views(self._as_decoded(image))
        return self._decoder.read(image, self._make_views, probe)

    @staticmethod
    def stack(images: Sequence[Views]) -> Views:
        """Joins the views of several images into those of one request."""
        if len(images) == 1:
            return images[0]
        return Views(tuple(np.concatenate(rows) for rows in zip(*(views.rows for views in images), strict=True)))

    def _as_decoded(self, pixels: Pixels) -> Decoded:
        height, width, _ = pixels.shape
        if width * height > self._max_pixels:
            raise TooLarge(f"image of {width} x {height} pixels; the limit is {self._max_pixels} in all")
        if not width * height:
            raise InvalidInput("the image has no pixels")
        return Decoded(pixels, width, height)

    def _make_views(self, decoded: Decoded) -> Views:
        width, height = decoded.upright
        cropped: dict[tuple[Box, int, int], Pixels] = {}
        rows = []
        for geometry in self._geometries:
            squares = []
            for view in looks_at(geometry.views, width, height, geometry.steps):
                key = (view.box, geometry.size, geometry.channels)
                if key not in cropped:
                    cropped[key] = self._decoder.fit(decoded, *key)
                squares.append(arrange(cropped[key], view))
            rows.append(np.stack(squares)[np.newaxis])
        return Views(tuple(rows))
