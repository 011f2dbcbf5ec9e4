"""One decode for several networks: the looks that each of them takes of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.errors import InvalidInput, TooLarge
from models.artifact import Preprocessing
from models.ensembles.views import View, arrange, count_looks, finest_short, looks_at
from models.images.decoder import SMALL_SIDE, Decoded, Decoder
from models.images.jpeg import ImageBytes
from models.images.resize import Box, Pixels

INLINE_LOOKS = 16  # more of them take longer than a hop to a thread


@dataclass(frozen=True)
class Geometry:
    """What the members that share it see of an image. The normalisation is in their graphs."""

    channels: int
    resize: int
    size: int
    views: tuple[View, ...]

    @classmethod
    def of(cls, steps: Preprocessing, views: tuple[View, ...]) -> Geometry:
        return cls(steps.channels, steps.resize, steps.size, views)

    @property
    def steps(self) -> Preprocessing:
        return Preprocessing(self.channels, self.resize, self.size, (), ())

    @property
    def looks(self) -> int:
        return count_looks(self.views)


@dataclass(frozen=True)
class Views:
    """Per geometry the looks at all images of a request, UINT8 [images, looks, size, size, channels]."""

    rows: tuple[Pixels, ...]

    def __len__(self) -> int:
        return len(self.rows[0])

    def of(self, images: NDArray[np.bool_]) -> Views:
        """Those of the chosen images."""
        return Views(tuple(rows[images] for rows in self.rows))


class ViewsDecoder:
    """Decodes an image once, at the resolution that the most demanding geometry needs, and looks at it. Thread-safe.

    A single geometry with the view `identity` sees what `Decoder` gives, bit by bit.
    """

    def __init__(self, geometries: Sequence[Geometry], max_pixels: int) -> None:
        """`max_pixels`: the largest image, width times height. Raises ConfigError as `Decoder` does."""
        self._geometries = tuple(geometries)
        self._max_pixels = max_pixels
        channels = max(one.channels for one in geometries)
        finest = max(finest_short(one.views, one.steps) for one in geometries)
        size = max(one.size for one in geometries)
        self._decoder = Decoder(Preprocessing(channels, finest, size, (), ()), max_pixels)
        self._inline = sum(one.looks for one in geometries) <= INLINE_LOOKS and size <= SMALL_SIDE

    @property
    def channels(self) -> int:
        """1 when all members are grey, else 3."""
        return max(one.channels for one in self._geometries)

    @property
    def most_looks(self) -> int:
        """Rows that one image puts in the line of a member."""
        return max(one.looks for one in self._geometries)

    def is_small(self, image: ImageBytes | Pixels) -> bool:
        """Whether a hop to a thread would cost more than the looks."""
        if isinstance(image, np.ndarray):
            return self._inline and max(image.shape) <= SMALL_SIDE
        return self._inline and self._decoder.is_small(image)

    def glance(self, image: ImageBytes | Pixels) -> tuple[str, int]:
        """As `Decoder.glance`; the format of pixels is "pixels"."""
        if isinstance(image, np.ndarray):
            pixels = image.shape[0] * image.shape[1]
            return "pixels", pixels if pixels <= self._max_pixels else 0
        return self._decoder.glance(image)

    def decode(self, image: ImageBytes | Pixels) -> Views:
        """Views at one encoded image, or at pixels [height, width, channels]. Blocks. Raises as `Decoder.decode`."""
        if isinstance(image, np.ndarray):
            return self._look(self._as_decoded(image))
        return self._decoder.read(image, self._look)

    @staticmethod
    def stack(images: Sequence[Views]) -> Views:
        """Views at several images as those of one request."""
        if len(images) == 1:
            return images[0]
        return Views(tuple(np.concatenate(rows) for rows in zip(*(one.rows for one in images), strict=True)))

    def _as_decoded(self, pixels: Pixels) -> Decoded:
        height, width, _ = pixels.shape
        if width * height > self._max_pixels:
            raise TooLarge(f"image of {width} x {height} pixels; the limit is {self._max_pixels} in all")
        if not width * height:
            raise InvalidInput("the image has no pixels")
        return Decoded(pixels, width, height)

    def _look(self, decoded: Decoded) -> Views:
        width, height = decoded.upright
        seen: dict[tuple[Box, int, int], Pixels] = {}
        rows = []
        for geometry in self._geometries:
            squares = []
            for look in looks_at(geometry.views, width, height, geometry.steps):
                key = (look.box, geometry.size, geometry.channels)
                if key not in seen:
                    seen[key] = self._decoder.fit(decoded, *key)
                squares.append(arrange(seen[key], look))
            rows.append(np.stack(squares)[np.newaxis])
        return Views(tuple(rows))
