"""Decoding for ensembles: all views of all members from one decoded image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from convoy.errors import InvalidInput, TooLarge
from models.ensembles.views import View, arrange, looks_at
from models.images.decoder import Decoded, Decoder
from models.images.headers import Header
from serve.ensembles.multi_view import Geometry, Views, ViewsDecoder
from tests.pictures import CROPPED, GREY, WHOLE, flatten_colours, oriented, save, scene, steps, variants

PIXELS = 50_000_000
CIFAR = steps(3, 32, 32)


def geometries(views: tuple[View, ...] = ("identity",)) -> list[Geometry]:
    return [Geometry.of(preprocessing, views) for preprocessing in (CROPPED, GREY, WHOLE)]


@pytest.mark.parametrize("name", variants())
@pytest.mark.parametrize("wanted", [CROPPED, GREY, WHOLE], ids=["cropped", "grey", "whole"])
def test_the_identity_view_equals_the_decoder_of_the_model_bit_by_bit(name: str, wanted: object) -> None:
    body = variants()[name]
    decoded = ViewsDecoder([Geometry.of(wanted, ("identity",))], PIXELS).decode(body)  # type: ignore[arg-type]
    np.testing.assert_array_equal(decoded.rows[0][0, 0], Decoder(wanted).decode(body))  # type: ignore[arg-type]


def test_members_with_equal_inputs_share_their_rows_and_all_share_one_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    decodes: list[str] = []
    opened = Decoder._open

    def count(self: Decoder, name: str, body: bytes, header: Header | None) -> Decoded:
        decodes.append(name)
        return opened(self, name, body, header)

    monkeypatch.setattr(Decoder, "_open", count)
    decoder = ViewsDecoder([Geometry.of(CROPPED, ("ten_crops",)), *geometries()], PIXELS)
    decoded = decoder.decode(save(scene(640, 480), "JPEG"))
    assert [rows.shape for rows in decoded.rows] == [
        (1, 10, 56, 56, 3),
        (1, 1, 56, 56, 3),
        (1, 1, 28, 28, 1),
        (1, 1, 48, 48, 3),
    ]
    assert decodes == ["JPEG"]


@pytest.mark.parametrize("views", [("ten_crops",), ("shift", "flip"), ("five_crops", "shift")])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_views_match_pillow(views: tuple[View, ...], orientation: int) -> None:
    picture = scene(151, 100)
    body = oriented(picture, "PNG", orientation)
    seen = ViewsDecoder([Geometry.of(CROPPED, views)], PIXELS).decode(body).rows[0][0]
    with Image.open(io.BytesIO(body)) as file:
        image = flatten_colours(ImageOps.exif_transpose(file), 3)
        for pixels, view in zip(seen, looks_at(views, *image.size, CROPPED), strict=True):
            expected = image.resize((56, 56), Image.Resampling.BILINEAR, view.box)
            difference = np.abs(pixels.astype(np.int64) - arrange(np.asarray(expected), view))
            assert difference.max() <= 3
            assert difference.mean() <= 0.6


def test_a_large_photo_keeps_the_resolution_that_its_finest_view_needs() -> None:
    """The reduced decoding of libjpeg for a small member does not blur the crops of a large member."""
    body = save(scene(2400, 1800), "JPEG", quality=95)
    both = ViewsDecoder([Geometry.of(CIFAR, ("identity",)), Geometry.of(steps(3, 256, 224), ("identity",))], PIXELS)
    large = both.decode(body).rows[1][0, 0]
    np.testing.assert_array_equal(large, Decoder(steps(3, 256, 224)).decode(body))


def test_pixels_have_the_same_views_as_encoded_images() -> None:
    pixels = np.asarray(scene(200, 120))
    decoder = ViewsDecoder([Geometry.of(CROPPED, ("five_crops",))], PIXELS)
    np.testing.assert_array_equal(decoder.decode(pixels).rows[0], decoder.decode(save(scene(200, 120), "PNG")).rows[0])


def test_images_of_a_request_are_stacked_and_selected_in_order() -> None:
    decoder = ViewsDecoder([Geometry.of(CIFAR, ("flip",))], PIXELS)
    images = [np.full((32, 32, 3), value, np.uint8) for value in range(5)]
    decoded = decoder.stack([decoder.decode(image) for image in images])
    assert len(decoded) == 5
    chosen = decoded.of(np.array([False, True, False, False, True]))
    assert isinstance(chosen, Views)
    assert chosen.rows[0][:, :, 0, 0, 0].tolist() == [[1, 1], [4, 4]]


def test_invalid_and_oversized_images_are_refused_as_by_the_decoder() -> None:
    decoder = ViewsDecoder(geometries(), 1000)
    with pytest.raises(TooLarge):
        decoder.decode(save(scene(40, 40), "PNG"))
    with pytest.raises(TooLarge):
        decoder.decode(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(InvalidInput):
        decoder.decode(np.zeros((0, 40, 3), np.uint8))
    for body in (b"", b"not an image", save(scene(20, 20), "PNG")[:60]):
        with pytest.raises(InvalidInput):
            decoder.decode(body)


def test_only_small_images_with_few_small_views_stay_on_the_event_loop() -> None:
    small, large = save(scene(32, 32), "PNG"), save(scene(400, 300), "PNG")
    few = ViewsDecoder([Geometry.of(CIFAR, ("flip",))], PIXELS)
    assert few.probe(small).small
    assert few.probe(np.zeros((32, 32, 3), np.uint8)).small
    assert not few.probe(large).small
    assert not few.probe(np.zeros((300, 400, 3), np.uint8)).small
    assert not ViewsDecoder([Geometry.of(CIFAR, ("googlenet_144",))], PIXELS).probe(small).small
    assert not ViewsDecoder([Geometry.of(steps(3, 256, 224), ("identity",))], PIXELS).probe(small).small
