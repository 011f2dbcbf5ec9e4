"""Views: the crops of an image, and how they are mirrored and shifted."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.artifact import Preprocessing
from models.ensembles.views import Look, View, arrange, check_views, count_looks, finest_short, looks_at
from models.images.geometry import crop_box

IMAGENET = Preprocessing(3, 256, 224, (0.0,) * 3, (1.0,) * 3)
CIFAR = Preprocessing(3, 32, 32, (0.0,) * 3, (1.0,) * 3)
SIDES = st.integers(8, 3000)


def valid_views() -> list[tuple[View, ...]]:
    lists: list[tuple[View, ...]] = [(view,) for view in get_args(View)]
    return [*lists, ("shift", "flip"), ("five_crops", "flip"), ("five_crops", "shift", "flip"), ("identity", "flip")]


@given(SIDES, SIDES, st.sampled_from(valid_views()), st.sampled_from([IMAGENET, CIFAR]))
def test_crops_lie_in_the_image_and_have_the_announced_number(
    width: int, height: int, views: tuple[View, ...], steps: Preprocessing
) -> None:
    crops = looks_at(views, width, height, steps)
    assert len(crops) == count_looks(views)
    finest = finest_short(views, steps)
    for crop in crops:
        left, top, right, bottom = crop.box
        assert -1e-6 <= left < right <= width + 1e-6
        assert -1e-6 <= top < bottom <= height + 1e-6
        # No crop is finer than the resolution that decoding keeps.
        assert min(right - left, bottom - top) >= min(width, height) * steps.size / finest * (1 - 1e-6)


@given(SIDES, SIDES, st.sampled_from([IMAGENET, CIFAR]))
def test_the_first_crop_of_identity_flip_and_shift_is_that_of_plain_preprocessing(
    width: int, height: int, steps: Preprocessing
) -> None:
    for views in (("identity",), ("flip",), ("shift",), ("shift", "flip")):
        assert looks_at(views, width, height, steps)[0] == Look(crop_box(width, height, steps))


def test_ten_crops_are_those_of_alexnet() -> None:
    """Of a 256 x 256 image: the centre, the four corners, each 224 x 224, and their mirror images."""
    crops = looks_at(("ten_crops",), 256, 256, IMAGENET)
    corners = {(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)}
    assert {crop.box for crop in crops} == {(x, y, x + 224, y + 224) for x, y in corners}
    assert sum(crop.mirrored for crop in crops) == 5
    assert crops == looks_at(("five_crops", "flip"), 256, 256, IMAGENET)


def test_googlenet_crops_have_four_scales_three_squares_and_six_boxes_each_mirrored() -> None:
    """As many as in the paper; the box that is the full square is the same at every scale."""
    crops = looks_at(("googlenet_144",), 800, 400, IMAGENET)
    assert len(crops) == 4 * 3 * 6 * 2
    assert sum(crop.mirrored for crop in crops) == 72
    boxes = {tuple(round(edge) for edge in crop.box) for crop in crops}
    assert len(boxes) == 4 * 3 * 5 + 3
    assert boxes >= {(0, 0, 400, 400), (200, 0, 600, 400), (400, 0, 800, 400)}
    sides = {round((crop.box[2] - crop.box[0]) / 400, 3) for crop in crops}
    assert sides == {round(224 / short, 3) for short in (256, 288, 320, 352)} | {1.0}


@pytest.mark.parametrize("steps", [CIFAR, IMAGENET])
def test_a_shift_moves_the_pixels_and_repeats_the_edge(steps: Preprocessing) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (steps.size, steps.size, 3), np.uint8)
    step = steps.size // 16
    right = arrange(pixels, Look((0, 0, 1, 1), shift=(step, 0)))
    np.testing.assert_array_equal(right[:, step:], pixels[:, :-step])
    np.testing.assert_array_equal(right[:, :step], np.repeat(pixels[:, :1], step, axis=1))
    up = arrange(pixels, Look((0, 0, 1, 1), shift=(0, -step)))
    np.testing.assert_array_equal(up[:-step], pixels[step:])
    np.testing.assert_array_equal(up[-step:], np.repeat(pixels[-1:], step, axis=0))


def test_a_mirror_image_equals_that_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    mirrored = Image.fromarray(pixels).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(arrange(pixels, Look((0, 0, 32, 32), mirrored=True)), np.asarray(mirrored))


@pytest.mark.parametrize(
    ("views", "reason"),
    [
        ((), "at least one"),
        (("flip", "flip"), "twice"),
        (("flip", "five_crops"), "first"),
        (("five_crops", "googlenet_144"), "first"),
        (("ten_crops", "flip"), "already holds"),
    ],
)
def test_invalid_sequences_of_views_are_refused(views: tuple[View, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_views(views)
