"""Resizing a box, applying the orientation and blending with white, compared with Pillow on the full image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from models.images.orientation import stored_box, upright
from models.images.pixel_formats import luma, on_white, to_eight_bits
from models.images.resize import Box, Pixels, block_factor, region, within
from tests.pictures import RESAMPLERS, scene

TRANSPOSE = Image.Transpose
TRANSPOSITIONS = {
    2: TRANSPOSE.FLIP_LEFT_RIGHT,
    3: TRANSPOSE.ROTATE_180,
    4: TRANSPOSE.FLIP_TOP_BOTTOM,
    5: TRANSPOSE.TRANSPOSE,
    6: TRANSPOSE.ROTATE_270,
    7: TRANSPOSE.TRANSVERSE,
    8: TRANSPOSE.ROTATE_90,
}


def pixels_of(image: Image.Image) -> Pixels:
    return np.asarray(image).reshape(image.height, image.width, -1)


@pytest.mark.parametrize("name", RESAMPLERS)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    size=st.integers(1, 64),
)
def test_resizing_a_region_equals_resizing_the_box_of_the_image(
    name: str, mode: str, width: int, height: int, corners: tuple[float, ...], size: int
) -> None:
    image = scene(width, height).convert(mode)
    left, right = sorted((corners[0] * (width - 1), corners[1] * (width - 1) + 1))
    top, bottom = sorted((corners[2] * (height - 1), corners[3] * (height - 1) + 1))
    box: Box = (left, top, max(right, left + 0.5), max(bottom, top + 0.5))
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    part = region(box, size, width, height)
    found = RESAMPLERS[name](pixels_of(image.crop(part)), within(box, part), size)
    wanted = pixels_of(image.resize((size, size), Image.Resampling.BILINEAR, box))
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_rotated_like_the_image(orientation: int) -> None:
    stored = scene(50, 30)
    shown = stored.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else stored
    assert (upright(pixels_of(stored), orientation) == pixels_of(shown)).all()
    box = (3, 5, 17, 24)
    left, top, right, bottom = (int(side) for side in stored_box(box, orientation, *stored.size))
    cut = stored.crop((left, top, right, bottom))
    assert (upright(pixels_of(cut), orientation) == pixels_of(shown.crop(box))).all()


def test_orientations_agree_with_pillow() -> None:
    for orientation in range(1, 9):
        image = scene(20, 16)
        image.getexif()[0x0112] = orientation
        assert (upright(pixels_of(image), orientation) == pixels_of(ImageOps.exif_transpose(image))).all()


def test_blending_with_white_and_luma_agree_with_pillow() -> None:
    image = scene(64, 64)
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    white = Image.new("RGBA", image.size, "white")
    composed = Image.alpha_composite(white, image).convert("RGB")
    assert np.abs(on_white(pixels_of(image)).astype(int) - pixels_of(composed)).max() <= 1
    assert (luma(pixels_of(composed)) == pixels_of(composed.convert("L"))).all()


def test_block_reduction_leaves_three_pixels_per_target_pixel() -> None:
    for scale in (1.0, 5.99, 6.0, 7.5, 31.0):
        factor = block_factor((0, 0, 20 * scale, 30 * scale), 10)
        assert factor == (1 if scale < 3 else int(2 * scale / 3))


@given(maximum=st.integers(1, 65_535), value=st.integers(0, 65_535))
def test_conversion_to_eight_bits_rounds_and_saturates(maximum: int, value: int) -> None:
    found = int(to_eight_bits(np.array([value], np.uint16), maximum)[0])
    assert abs(found - min(255.0, value * 255 / maximum)) <= 0.5
