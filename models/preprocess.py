"""From an image to UINT8 rows: the one definition that training evaluation, parity checks and serving share.

Geometry is torchvision's: the short side is resized (bilinear, antialiased), then the centre is cropped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.artifact import Preprocessing

WIDE_MODES = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}
TRANSPARENT_MODES = {"RGBA", "LA", "PA", "RGBa", "La"}

Box = tuple[float, float, float, float]


def crop_box(width: int, height: int, steps: Preprocessing) -> Box:
    """What the network sees of an image, in the image's own pixels: (left, top, right, bottom).

    Resizing just this box to `size` x `size` equals resizing all and cropping, without ever holding the resized whole.
    """
    resized_width, resized_height = resized_size(width, height, steps.resize)
    left, top = round((resized_width - steps.size) / 2), round((resized_height - steps.size) / 2)
    return square_box(width, height, steps.resize, left, top, steps.size)


def resized_size(width: int, height: int, short: int) -> tuple[int, int]:
    """Width and height of an image once its short side is `short`, rounded as torchvision does."""
    shorter = min(width, height)
    return (
        short if width == shorter else int(short * width / shorter),
        short if height == shorter else int(short * height / shorter),
    )


def square_box(width: int, height: int, short: int, left: int, top: int, side: int) -> Box:
    """The square of `side` at (left, top) of the image resized to `short`, in the pixels of the image itself."""
    resized_width, resized_height = resized_size(width, height, short)
    across, down = width / resized_width, height / resized_height
    return (left * across, top * down, (left + side) * across, (top + side) * down)


def flatten_colours(image: Image.Image, channels: int) -> Image.Image:
    """Mode L or RGB as people see the image: 16 bits scaled to 8, transparency on white, palettes and CMYK resolved."""
    if image.mode in WIDE_MODES:
        image = _eight_bits(image)
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, np.float64)
    top = 255.0 if image.mode == "F" or values.max(initial=0) <= 255 else 65535.0
    if image.mode.startswith("I;16"):
        top = 65535.0
    return Image.fromarray(np.clip(values * (255 / top) + 0.5, 0, 255).astype(np.uint8))


def prepare(image: Image.Image, steps: Preprocessing) -> NDArray[np.uint8]:
    """An opened image, turned as its EXIF says, as UINT8 [size, size, channels]."""
    image = flatten_colours(ImageOps.exif_transpose(image), steps.channels)
    return resample(image, steps)


def resample(image: Image.Image, steps: Preprocessing) -> NDArray[np.uint8]:
    """A mode L or RGB image as UINT8 [size, size, channels]."""
    if image.size != (steps.size, steps.size) or steps.resize != steps.size:
        box = crop_box(*image.size, steps)
        image = image.resize((steps.size, steps.size), Image.Resampling.BILINEAR, box)
    pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels.reshape(steps.size, steps.size, steps.channels)


def prepare_pixels(images: NDArray[np.uint8], steps: Preprocessing) -> NDArray[np.uint8]:
    """Images of a data set, UINT8 [n, height, width, channels], as rows [n, size, size, channels]."""
    modes = (flatten_colours(Image.fromarray(image.squeeze()), steps.channels) for image in images)
    return np.stack([resample(image, steps) for image in modes])


def normalise(images: NDArray[np.uint8], steps: Preprocessing) -> NDArray[np.float32]:
    """Rows UINT8 [n, size, size, channels] as the network's input, FP32 [n, channels, side, side]."""
    padded = np.pad(images, ((0, 0), (steps.pad,) * 2, (steps.pad,) * 2, (0, 0))).astype(np.float32)
    mean, std = (np.array(values, np.float32) for values in (steps.mean, steps.std))
    return np.ascontiguousarray(((padded / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
