"""Synthetic photos: smooth colours with some grain, so that JPEG sizes and decode times match those of real photos."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from loadtest.payloads.item import Item
from loadtest.plan import Payload

ASPECT = 3 / 4
LARGEST_SIDE = 8192
GRAIN = 10.0
JPEG_QUALITY = 87


def draw_images(payload: Payload, seed: int) -> tuple[Item, ...]:
    """`count` images whose long sides follow a log-normal distribution around `side`; small ones are square."""
    generator = np.random.default_rng([seed, 4])
    sides = payload.side * np.exp(payload.side_spread * generator.standard_normal(payload.count))
    return tuple(Item(_draw(int(np.clip(side, 1, LARGEST_SIDE)), payload, generator)) for side in sides)


def _draw(side: int, payload: Payload, generator: np.random.Generator) -> bytes:
    width, height = side, side if side <= 64 else max(1, round(side * ASPECT))
    mode = "L" if payload.channels == 1 else "RGB"
    coarse = generator.integers(0, 256, (6, 8, 3), np.uint8)
    smooth = Image.fromarray(coarse).convert(mode).resize((width, height), Image.Resampling.BICUBIC)
    grain = generator.standard_normal(np.asarray(smooth).shape, np.float32) * GRAIN
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    if payload.format == "jpeg":
        Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY)
    else:
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()
