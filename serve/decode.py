"""Encoded images to the rows an engine takes. The bytes are hostile: limits come from the header, before any decoding.

JPEG goes through libjpeg-turbo, scaled down while it is decoded (DCT scaling) and without the GIL; the rest through Pillow.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from convoy.errors import InvalidInput, TooLarge
from models.artifact import Preprocessing
from models.preprocess import prepare, resample

Body = bytes | memoryview

SMALL_PIXELS = 64 * 64  # up to this size a hop to a thread costs more than the image
JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF or PPM"
# Opening by the right plugin skips Pillow's search and keeps every other plugin away from foreign bytes.
OPENERS = (
    (JPEG_START, JpegImagePlugin.JpegImageFile),
    (PNG_START, PngImagePlugin.PngImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    *((b"P%d" % kind, PpmImagePlugin.PpmImageFile) for kind in range(1, 7)),
)

# Our own limit is checked before; Pillow's warns through a process-wide filter.
Image.MAX_IMAGE_PIXELS = None
EXIF_MARK = b"Exif\0\0"
EXIF_SEARCH_BYTES = 64 * 1024 + 64  # the Exif segment is at most 64 KiB and stands near the start


class Decoder:
    """Decodes for one model: UINT8 [size, size, channels] by the model's preprocessing. Thread-safe."""

    def __init__(self, steps: Preprocessing, max_pixels: int) -> None:
        self._steps = steps
        self._max_pixels = max_pixels
        self._colours = "GRAY" if steps.channels == 1 else "RGB"

    def is_small(self, body: Body) -> bool:
        """Whether the image is so small that it is decoded fastest right here; known for PNG, which small images are."""
        if bytes(body[:8]) != PNG_START or len(body) > 4 * SMALL_PIXELS:
            return False
        width, height = int.from_bytes(body[16:20], "big"), int.from_bytes(body[20:24], "big")
        return width * height <= SMALL_PIXELS

    def decode(self, body: Body) -> NDArray[np.uint8]:
        """Raises InvalidInput when it is no whole image, TooLarge when it has too many pixels."""
        if bytes(body[:3]) == JPEG_START:
            pixels = self._decode_jpeg(body)
            if pixels is not None:
                return pixels
        return self._decode_any(body)

    def _decode_jpeg(self, body: Body) -> NDArray[np.uint8] | None:
        """None for what libjpeg-turbo does not do alone: CMYK, and images that EXIF turns."""
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(body)
        except ValueError as error:
            raise InvalidInput("not a whole JPEG image: its header is damaged or cut short") from error
        self._check_pixels(width, height)
        if colours in ("CMYK", "YCCK") or EXIF_MARK in bytes(body[:EXIF_SEARCH_BYTES]):
            return None
        # Twice the target before the antialiased resize keeps what a full-size decode would show.
        least = 2 * self._steps.resize
        try:
            pixels = simplejpeg.decode_jpeg(
                body, self._colours, min_height=min(height, least), min_width=min(width, least), min_factor=1
            )
        except ValueError as error:
            raise InvalidInput("not a whole JPEG image: its data are damaged or cut short") from error
        image = Image.fromarray(pixels.squeeze(2) if self._steps.channels == 1 else pixels)
        return resample(image, self._steps)

    def _decode_any(self, body: Body) -> NDArray[np.uint8]:
        opener = next((opener for start, opener in OPENERS if bytes(body[: len(start)]) == start), None)
        if opener is None:
            raise InvalidInput(f"not an image: send {FORMATS}")
        try:
            with opener(io.BytesIO(body)) as image:
                self._check_pixels(*image.size)
                return prepare(image, self._steps)
        except (InvalidInput, TooLarge):
            raise
        except Exception as error:
            raise InvalidInput(f"not a whole image: {type(error).__name__} while reading it; it is damaged or cut short") from error

    def _check_pixels(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise InvalidInput("the image has no pixels")
        if width * height > self._max_pixels:
            raise TooLarge(f"image of {width} x {height} pixels; the limit is {self._max_pixels} in all")
