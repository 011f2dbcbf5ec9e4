"""The arithmetic of resize and centre crop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.artifact import Preprocessing
from models.images.decoder import Decoded, Decoder
from models.images.geometry import crop_box

IMAGENET = Preprocessing(3, 256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_crop_lies_in_the_image_and_is_square(width: int, height: int) -> None:
    left, top, right, bottom = crop_box(width, height, IMAGENET)
    assert -1e-6 <= left < right <= width + 1e-6
    assert -1e-6 <= top < bottom <= height + 1e-6
    assert min(right - left, bottom - top) == pytest.approx(min(width, height) * 224 / 256, rel=1e-6)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (1000, 300)])
def test_resizing_the_box_equals_resizing_the_image_and_cropping(size: tuple[int, int]) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    image = Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC)
    width, height = size
    short = min(size)
    resized = image.resize((int(256 * width / short), int(256 * height / short)), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.int16)
    assert np.abs(Decoder(IMAGENET).crop(Decoded(image, width, height)) - expected).max() <= 1
