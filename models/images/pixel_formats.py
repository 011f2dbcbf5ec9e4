"""Conversion of every pixel format of image files to 8-bit grey, RGB or RGBA."""

from __future__ import annotations

import numpy as np
from PIL import Image

from convoy.errors import InvalidInput
from models.images.headers import PnmHeader
from models.images.jpeg import ImageBytes
from models.images.resize import Pixels

DIRECT = {"La": "LA", "RGBa": "RGBA", "LAB": "RGB"}  # the only mode that Pillow converts these to


def to_eight_bits(values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], maximum: int) -> Pixels:
    """Scales 0..maximum to 0..255, rounded; larger values become 255. A table avoids wide copies of large images."""
    table = np.full(65_536, 255, np.uint8)
    levels = np.arange(maximum + 1, dtype=np.uint32)
    table[: maximum + 1] = (levels * 510 + maximum) // (2 * maximum)
    return table[values]


def to_plain_mode(image: Image.Image, channels: int) -> Image.Image:
    """Converts to mode RGBA if there is transparency, else to L for one channel and to L or RGB for three.

    Raises InvalidInput for 32-bit integer and float pixels: files do not define which value is white.
    """
    if image.mode in DIRECT:
        image = image.convert(DIRECT[image.mode])
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16, copy=False)
        return Image.fromarray(to_eight_bits(values, 65_535))
    if image.mode in ("I", "F"):
        raise InvalidInput("32-bit integer and float pixels are not accepted: send 8 or 16 bits per channel")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "L" or (image.mode == "RGB" and channels == 3):
        return image
    return image.convert("L" if channels == 1 or image.mode == "1" else "RGB")


def pnm_pixels(header: PnmHeader, body: ImageBytes) -> Pixels:
    """The pixels of a binary PNM, UINT8 [height, width, 1 | 3]. Raises InvalidInput when some are missing."""
    width, height, depth = header.width, header.height, 3 if header.kind == 6 else 1
    sample = 2 if header.maximum > 255 else 1
    row = (width + 7) // 8 if header.kind == 4 else width * depth * sample
    if len(body) - header.start < row * height:
        raise InvalidInput(f"truncated PNM: {height} rows of {row} bytes are announced")
    data = np.frombuffer(body, np.uint8, row * height, header.start)
    if header.kind == 4:
        bits = np.unpackbits(data.reshape(height, row), axis=1, count=width)
        return ((1 - bits) * np.uint8(255))[..., np.newaxis]
    if header.maximum == 255:
        return data.reshape(height, width, depth)
    values = data.view(">u2") if sample == 2 else data
    return to_eight_bits(values.astype(np.uint16), header.maximum).reshape(height, width, depth)


def on_white(pixels: Pixels) -> Pixels:
    """Composes UINT8 [..., 4] on white, to [..., 3], as browsers and viewers show transparent images."""
    alpha = pixels[..., 3:].astype(np.uint16)
    shade = (255 - pixels[..., :3]) * alpha + 127
    return (255 - shade // 255).astype(np.uint8)


def luma(pixels: Pixels) -> Pixels:
    """UINT8 RGB [..., 3] to ITU-R BT.601 luma [..., 1], with Pillow's rounding."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    grey = (pixels.astype(np.uint32) @ weights + 0x8000) >> 16
    return grey.astype(np.uint8)[..., np.newaxis]
