"""The decoder's resize: torchvision's antialiased bilinear filter, computed only for the crop.

Uses `cykooz-resizer` (SIMD, without the GIL) if it is installed, else Pillow: on Linux on ARM, for example, it has no wheels. The
two differ by rounding, 1 of 255, and are equally far from exact arithmetic.
"""

from __future__ import annotations

import importlib
import math
import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

# A source of REDUCE_FROM times the target or more is first averaged in blocks, to at least REDUCE_TO times the target.
REDUCE_FROM = 6.0
REDUCE_TO = 3.0


class Resampler(Protocol):
    """Resizes `box` (left, top, right, bottom, in fractional pixels) of an image to a square."""

    def __call__(self, pixels: Pixels, box: Box, size: int) -> Pixels:
        """UINT8 [height, width, channels] to [size, size, channels], with 1, 3 or 4 channels; the fourth is straight alpha."""
        ...


def pillow_resample(pixels: Pixels, box: Box, size: int) -> Pixels:
    """Resampler by Pillow."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box)
    return np.frombuffer(resized.tobytes(), np.uint8).reshape(size, size, pixels.shape[2])


class SimdResampler:
    """Resampler by cykooz-resizer. It gets bytes, since its support of Pillow images depends on their memory layout."""

    def __init__(self) -> None:
        """Raises ImportError if cykooz-resizer is not installed."""
        self._library: Any = importlib.import_module("cykooz_resizer")
        kinds = self._library.PixelType
        self._kinds = {1: kinds.U8, 3: kinds.U8x3, 4: kinds.U8x4}
        self._filter = self._library.ResizeAlg.convolution(self._library.FilterType.bilinear)
        self._local = threading.local()  # a resizer has one set of buffers behind a lock, so each thread has its own

    def __call__(self, pixels: Pixels, box: Box, size: int) -> Pixels:
        height, width, channels = pixels.shape
        library, kind = self._library, self._kinds[channels]
        try:
            resizer = self._local.resizer
        except AttributeError:
            resizer = self._local.resizer = library.Resizer()
        left, top, right, bottom = box
        options = library.ResizeOptions(
            self._filter, use_alpha=channels == 4, crop_box=library.CropBox(left, top, right - left, bottom - top)
        )
        target = library.ImageData(size, size, kind)
        resizer.resize(library.ImageData(width, height, kind, pixels.tobytes()), target, options)
        return np.frombuffer(target.get_buffer(), np.uint8).reshape(size, size, channels)


def best_resampler() -> Resampler:
    """The fastest installed resampler."""
    try:
        return SimdResampler()
    except ImportError:
        return pillow_resample


def region(box: Box, size: int, width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels that resizing `box` to `size` reads: the box plus the filter's support, as (left, top, right, bottom)."""
    left, top, right, bottom = box
    across, down = (math.ceil(max(1.0, length / size)) + 1 for length in (right - left, bottom - top))
    return (
        max(0, math.floor(left) - across),
        max(0, math.floor(top) - down),
        min(width, math.ceil(right) + across),
        min(height, math.ceil(bottom) + down),
    )


def within(box: Box, part: tuple[int, int, int, int], factor: int = 1) -> Box:
    """`box` in coordinates of `part` of the image, made `factor` times smaller; clamped to it against rounding errors."""
    left, top, right, bottom = part
    width, height = (right - left) / factor, (bottom - top) / factor
    return (
        max(0.0, (box[0] - left) / factor),
        max(0.0, (box[1] - top) / factor),
        min(width, (box[2] - left) / factor),
        min(height, (box[3] - top) / factor),
    )


def block_factor(box: Box, size: int) -> int:
    """The block size by which an image may be averaged before `box` is resized to `size`; 1 for none."""
    scale = min(box[2] - box[0], box[3] - box[1]) / size
    return int(scale / REDUCE_TO) if scale >= REDUCE_FROM else 1
