"""The decoder with bytes that are no image, truncated, damaged, or crafted to cost memory and time."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convoy.errors import ConvoyError, InvalidInput, TooLarge
from models.images.decoder import Decoder
from models.images.headers import Probe
from models.images.resize import Pixels
from tests.fuzz.images import complaint
from tests.pictures import CROPPED, GREY, save, scene, small_files, variants

MEGABYTES_16 = 16 << 20
HOSTILE = Path(__file__).parent / "hostile"  # files found by python -m tests.fuzz
# Length of the end marker without which a file still holds the complete image.
UNNEEDED_TAIL = {"gif": 3}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def refused(body: bytes, decoder: Decoder | None = None) -> ConvoyError:
    with pytest.raises(ConvoyError) as caught:
        (decoder or Decoder(CROPPED)).decode(body)
    assert isinstance(caught.value, InvalidInput | TooLarge)
    return caught.value


@pytest.mark.parametrize("body", [b"", b"x", b"hello, world", b"%!PS-Adobe-3.0 EPSF-3.0", b"RIFF\0\0\0\0WAVEfmt "])
def test_a_body_that_is_no_image_is_refused_with_the_list_of_formats(body: bytes) -> None:
    message = str(refused(body))
    for name in ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "PNM"):
        assert name in message


def outcome(decoder: Decoder, body: bytes, probe: Probe | None = None) -> Pixels | str:
    """The image, or the message of the refusal."""
    try:
        return decoder.decode(body, probe)
    except (InvalidInput, TooLarge) as error:
        return str(error)


def assert_same(first: Pixels | str, second: Pixels | str) -> None:
    assert type(first) is type(second)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", small_files())
def test_a_file_truncated_anywhere_is_refused(name: str) -> None:
    body, decoder = small_files()[name], Decoder(CROPPED)
    complete = decoder.decode(body)
    for end in range(len(body)):
        result = outcome(decoder, body[:end])
        if isinstance(result, str):
            assert end < 16 or re.search("truncated|corrupt|no pixels", result)
        else:
            assert len(body) - end <= UNNEEDED_TAIL.get(name, 0), f"{end} of {len(body)} bytes"
            assert (result == complete).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "PPM", "BMP"])
def test_a_truncated_photo_is_called_truncated(form: str) -> None:
    body = save(scene(300, 200), form)
    assert "truncated" in str(refused(body[: len(body) * 2 // 3]))


@pytest.mark.parametrize("name", variants())
def test_too_many_pixels_are_refused_for_every_format(name: str) -> None:
    error = refused(variants()[name], Decoder(CROPPED, max_pixels=160 * 120 - 1))
    assert isinstance(error, TooLarge)
    assert "160 x 120" in str(error)
    Decoder(CROPPED, max_pixels=160 * 120).decode(variants()[name])


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0))
    assert isinstance(refused(head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")), TooLarge)
    gif = bytearray(save(scene(20, 16), "GIF"))
    frame = gif.index(b",", 13 + 3 * 256)
    gif[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"  # the frame, not the canvas, is large
    assert isinstance(refused(bytes(gif)), TooLarge)
    tiles = struct.pack("<HHII", 322, 4, 1, 1 << 20) + struct.pack("<HHII", 323, 4, 1, 1 << 20)
    assert isinstance(refused(b"II*\0" + struct.pack("<IH", 8, 2) + tiles + bytes(4)), TooLarge)


def test_compressed_texts_and_profiles_are_never_unpacked() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    ancillary = chunk(b"iCCP", b"x\0\0" + bomb) + chunk(b"zTXt", b"k\0\0" + bomb) * 20 + chunk(b"acTL", b"")
    for picture in (scene(20, 16), scene(20, 16).quantize(16)):
        body = save(picture, "PNG")
        assert (Decoder(CROPPED).decode(body[:33] + ancillary + body[33:]) == Decoder(CROPPED).decode(body)).all()


def flooded() -> dict[str, bytes]:
    """Files whose many tiny parts would keep a reader written in Python busy for seconds."""
    jpeg, png, gif = (save(scene(20, 16), form) for form in ("JPEG", "PNG", "GIF"))
    tags = b"".join(struct.pack("<HHII", 30_000 + tag, 7, 1 << 20, 8) for tag in range(1000))
    return {
        "segments": jpeg[:2] + b"\xff\xfe\x00\x02" * (MEGABYTES_16 // 4) + jpeg[2:],
        "filler": jpeg[:2] + b"\xff" * MEGABYTES_16 + jpeg[2:],
        "chunks": png[:33] + chunk(b"teXt", b"") * (MEGABYTES_16 // 12) + png[33:],
        "blocks": gif[:13] + b"!\xfe" + b"\x01x" * (MEGABYTES_16 // 2) + b"\0" + gif[13:],
        "spaces": b"P6 " + b" " * MEGABYTES_16,
        "tags that share their data": b"II*\0" + struct.pack("<I", 8 + (1 << 20)) + bytes(1 << 20) + b"\xe8\x03" + tags,
        "strips": b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 273, 3, 1 << 20, 26) + bytes(4 << 20),
    }


def test_files_with_too_many_parts_are_refused_early() -> None:
    for name, body in flooded().items():
        assert isinstance(refused(body), InvalidInput), name


def test_a_progressive_jpeg_with_too_many_scans_is_refused() -> None:
    body = save(scene(400, 300), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    scans = body[:last] + body[last:-2] * 2000 + body[-2:]
    assert isinstance(refused(scans, Decoder(CROPPED, max_pixels=1_000_000)), TooLarge)


def test_refusals_name_run_length_bmp_fax_tiff_and_float_pixels() -> None:
    bmp = bytearray(save(scene(20, 16).quantize(16), "BMP"))
    bmp[30] = 1
    assert "run-length" in str(refused(bytes(bmp)))
    assert "group4" in str(refused(save(scene(20, 16).convert("1"), "TIFF", compression="group4")))
    assert "8 or 16 bits" in str(refused(save(scene(20, 16).convert("F"), "TIFF")))


def test_a_jpeg_with_only_libjpeg_warnings_is_decoded() -> None:
    for picture in (scene(64, 64), scene(64, 64).convert("CMYK")):
        body, decoder = save(picture, "JPEG"), Decoder(CROPPED)
        with_junk = body[:-2] + b"junk" * 20 + body[-2:]
        difference = decoder.decode(with_junk).astype(int) - decoder.decode(body)
        assert np.abs(difference).max() <= 2


def test_warnings_of_pillow_are_suppressed() -> None:
    body = bytearray(save(scene(20, 16), "TIFF"))
    (start,) = struct.unpack_from("<I", body, 4)
    (count,) = struct.unpack_from("<H", body, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", body, entry)[0] == 277:  # samples per pixel: one value is expected
            struct.pack_into("<IHH", body, entry + 4, 2, 3, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Decoder(CROPPED).decode(bytes(body))
    assert caught == []


FILES = st.sampled_from(sorted(small_files()))
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 2), st.binary(min_size=1, max_size=6))


@settings(deadline=None, max_examples=400)
@given(name=FILES, edits=st.lists(EDIT, min_size=1, max_size=6), grey=st.booleans())
def test_damaged_files_give_an_image_or_a_plain_refusal(
    name: str, edits: list[tuple[float, int, bytes]], grey: bool
) -> None:
    body = bytearray(small_files()[name])
    for where, how, data in edits:
        position = int(where * len(body) ** 0.5) ** 2 if len(data) % 2 else int(where * len(body))
        if how == 0:
            body[position : position + len(data)] = data
        elif how == 1:
            body[position:position] = data
        else:
            del body[position : position + len(data)]
    decoder = Decoder(GREY if grey else CROPPED, max_pixels=1_000_000)
    result = outcome(decoder, bytes(body))
    assert_same(outcome(decoder, bytes(body), decoder.probe(bytes(body))), result)
    assert result if isinstance(result, str) else result.shape == ((28, 28, 1) if grey else (56, 56, 3))


STARTS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF....WEBPVP8 ",
    b"P5\n",
]


@settings(deadline=None, max_examples=300)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_arbitrary_bytes_give_a_plain_refusal(start: bytes, rest: bytes) -> None:
    decoder = Decoder(CROPPED, max_pixels=1_000_000)
    body = start + rest
    assert len(outcome(decoder, body)) > 0
    assert_same(outcome(decoder, body, decoder.probe(body)), outcome(decoder, body))


def test_a_hostile_file_does_not_affect_the_next_one() -> None:
    decoder = Decoder(GREY)
    digit = Image.fromarray(np.arange(784, dtype=np.uint16).reshape(28, 28).astype(np.uint8))
    body = save(digit, "PNG")
    data = zlib.compress(bytes([9]) * 100)  # too short, and with a filter that does not exist
    broken = body[:33] + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    for _ in range(3):
        refused(broken, decoder)
        assert (decoder.decode(body)[..., 0] == np.asarray(digit)).all()


def test_libtiff_writes_nothing_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Found by the fuzzer: each damaged TIFF wrote lines into the server's log."""
    for name, compression in (("checksum", "tiff_adobe_deflate"), ("codes", "tiff_lzw")):
        body = bytearray(save(scene(160, 120), "TIFF", compression=compression))
        body[100:2000:7] = bytes(len(body[100:2000:7]))
        assert isinstance(refused(bytes(body)), InvalidInput), name
    assert capfd.readouterr().err == ""


def test_files_found_by_the_fuzzer_are_handled() -> None:
    paths = sorted(path for path in HOSTILE.iterdir() if path.suffix != ".md")
    assert paths
    for path in paths:
        assert complaint(path.read_bytes()) == "", path


def test_pillow_logs_nothing_about_a_file(caplog: pytest.LogCaptureFixture) -> None:
    samples = struct.pack("<HHI", 277, 3, 1)  # SamplesPerPixel
    body = save(scene(16, 12), "TIFF")
    broken = body.replace(samples + b"\x03", samples + b"\xff")
    assert broken != body
    assert isinstance(refused(broken), InvalidInput)
    assert not caplog.records
