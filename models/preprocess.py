"""Converts images to UINT8 rows and to a network's input. Calibration, accuracy checks, parity and serving all use it.

Files go through the server's decoder (`models/images/decoder.py`), so an engine is calibrated and checked on exactly the pixels
that it gets in production, and an image that the server refuses is refused here too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.artifact import Preprocessing
from models.images.decoder import Decoded, Decoder


def prepare_pixels(images: NDArray[np.uint8], steps: Preprocessing) -> NDArray[np.uint8]:
    """Converts images of a data set, UINT8 [n, height, width, 1 | 3], to rows UINT8 [n, size, size, channels].

    Bit-identical to the rows that the server decodes from PNG files of these images.
    """
    decoder = Decoder(steps)
    height, width = images.shape[1:3]
    return np.stack([decoder.crop(Decoded(Image.fromarray(image.squeeze()), width, height)) for image in images])


def normalise(images: NDArray[np.uint8], steps: Preprocessing) -> NDArray[np.float32]:
    """Converts rows UINT8 [n, size, size, channels] to the network's input, FP32 [n, channels, side, side]."""
    padded = np.pad(images, ((0, 0), (steps.pad,) * 2, (steps.pad,) * 2, (0, 0))).astype(np.float32)
    mean, std = (np.array(values, np.float32) for values in (steps.mean, steps.std))
    return np.ascontiguousarray(((padded / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
