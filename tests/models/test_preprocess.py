"""Preprocessing of data sets: the pixels are exactly those that the server decodes from files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models.artifact import Preprocessing
from models.images.decoder import Decoder
from models.preprocess import normalise, prepare_pixels
from tests.pictures import CROPPED, GREY, WHOLE, save, steps


@pytest.mark.parametrize("wanted", [CROPPED, GREY, WHOLE, steps(3, 8, 8), steps(1, 3, 3)], ids=str)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (48, 48, 3), (96, 64, 3), (64, 96, 1)])
@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_rows_of_a_data_set_equal_the_decoded_files(
    wanted: Preprocessing, shape: tuple[int, int, int], form: str
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, *shape), np.uint8)
    rows = prepare_pixels(images, wanted)
    decoder = Decoder(wanted)
    decoded = [decoder.decode(save(Image.fromarray(image.squeeze()), form)) for image in images]
    assert rows.dtype == np.uint8
    np.testing.assert_array_equal(rows, np.stack(decoded))


def test_an_image_of_the_input_size_is_unchanged() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(prepare_pixels(images, GREY), images)


def test_normalisation_pads_with_black_first() -> None:
    padded = Preprocessing(1, 2, 2, (0.5,), (0.25,), 1)
    values = normalise(np.full((1, 2, 2, 1), 255, np.uint8), padded)
    assert values.shape == (1, 1, 4, 4)
    assert values[0, 0, 0, 0] == -2
    assert values[0, 0, 1, 1] == 2
