"""Reading formats, sizes and orientations from image headers, without decoding."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from convoy.errors import InvalidInput
from models.images.headers import read_header, read_pnm, sniff
from models.images.jpeg import plain_jpeg, read_jpeg
from models.images.orientation import exif_orientation
from models.images.png import plain_png, read_png
from tests.pictures import oriented, save, scene, variants


@pytest.mark.parametrize("name", variants())
def test_format_and_size_agree_with_pillow(name: str) -> None:
    body = variants()[name]
    with Image.open(io.BytesIO(body)) as image:
        form = sniff(body)
        assert form == ("PNM" if image.format == "PPM" else image.format)
        assert read_header(form, body)[1:3] == image.size


@pytest.mark.parametrize("end", range(0, 60, 3))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_truncated_header_is_refused_or_read_correctly(form: str, end: int) -> None:
    body = save(scene(20, 16), form)
    try:
        size = read_header(form, body[:end])[1:3]
    except InvalidInput:
        return
    assert size == (20, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_both_byte_orders(orientation: int, order: str) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    assert exif_orientation(b"Exif\0\0" + mark + struct.pack(order + "IH", 8, 1) + entry) == orientation
    assert exif_orientation(mark + struct.pack(order + "IH", 8, 1) + entry) == orientation


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_an_invalid_orientation_counts_as_upright(value: int) -> None:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, value, 0)
    assert exif_orientation(b"II*\0" + struct.pack("<IH", 8, 1) + entry) == 1


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"no exif at all", b"MM\0*" + b"\xff" * 40])
def test_unreadable_exif_counts_as_upright(exif: bytes) -> None:
    assert exif_orientation(exif) == 1


def test_jpeg_headers_hold_size_progression_and_orientation() -> None:
    assert read_jpeg(save(scene(20, 16), "JPEG", progressive=True)).progressive
    body = oriented(scene(20, 16), "JPEG", 6)
    header = read_jpeg(body)
    assert (header.width, header.height, header.progressive, header.orientation(body)) == (20, 16, False, 6)


def test_plain_files_hold_only_the_pixels() -> None:
    jpeg = save(scene(20, 16), "JPEG", comment=b"secret", exif=Image.Exif().tobytes(), icc_profile=b"profile" * 9)
    assert plain_jpeg(jpeg) == save(scene(20, 16), "JPEG")
    noted = save(scene(20, 16), "PNG", icc_profile=b"profile" * 9)
    assert plain_png(noted, read_png(noted)) == save(scene(20, 16), "PNG")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"P5 3 2 255\n", (5, 3, 2, 255, 11)),
        (b"P6\n# by hand\n3\t2 # odd\n65535\n", (6, 3, 2, 65_535, 29)),
        (b"P4\n3 2\n", (4, 3, 2, 1, 7)),
    ],
)
def test_pnm_headers_with_comments_are_read(header: bytes, wanted: tuple[int, ...]) -> None:
    found = read_pnm(header + bytes(99))
    assert (found.kind, found.width, found.height, found.maximum, found.start) == wanted


@pytest.mark.parametrize("header", [b"P5 3", b"P5 3 2 0\n", b"P5 3 2 65536\n", b"P5 3 2 255", b"P6 a b c\n", b"P4 3 2"])
def test_invalid_pnm_headers_are_refused(header: bytes) -> None:
    with pytest.raises(InvalidInput, match="PNM"):
        read_pnm(header)
