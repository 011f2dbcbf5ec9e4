"""The header of an image is parsed once, however the image reaches the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from models.images import decoder, headers
from models.images.decoder import Decoder
from tests.pictures import CROPPED, GREY, oriented, save, scene
from tests.serve.listeners import Serving, StartGateway

MODEL = "lenet5-mnist"
PARSERS = ("read_jpeg", "read_pnm", "_gif_size", "_bmp_size", "_webp_size", "_tiff_size")
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")


def files(side: int) -> dict[str, bytes]:
    image = scene(side, side)
    return {form: save(image, form) for form in FORMATS} | {
        "progressive JPEG": save(image, "JPEG", progressive=True),
        "oriented JPEG": oriented(image, "JPEG", 6),
        "CMYK JPEG": save(image.convert("CMYK"), "JPEG"),  # decoded by Pillow
        "PNG with a palette": save(image.convert("P"), "PNG"),
    }


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many headers were parsed: in all, and by the parser of each format."""
    counts = dict.fromkeys(("read_header", *PARSERS), 0)

    def count(module: Any, name: str) -> None:
        parse: Callable[..., Any] = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            counts[name] += 1
            return parse(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(decoder, "read_header")
    for name in PARSERS:
        count(headers, name)
    return counts


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[Serving]:
    with start_gateway(models=[{"name": MODEL}]) as gateway:
        yield gateway


@pytest.mark.parametrize("side", [28, 400], ids=["small", "large"])
@pytest.mark.parametrize("images", [1, 2])
def test_a_served_image_is_parsed_once(gateway: Serving, parsed: dict[str, int], side: int, images: int) -> None:
    url = f"{gateway.http}/v1/models/{MODEL}/classify"
    for name, body in files(side).items():
        parsed.update(dict.fromkeys(parsed, 0))
        parts = [("image", (str(place), body)) for place in range(images)]
        answer = httpx.post(url, content=body) if images == 1 else httpx.post(url, files=parts)
        assert answer.status_code == 200, (name, answer.text)
        assert parsed["read_header"] == images, name
        assert sum(parsed[parser] for parser in PARSERS) == (0 if "PNG" in name else images), name


@pytest.mark.parametrize("side", [28, 400])
def test_the_probe_changes_no_pixel(side: int) -> None:
    for wanted in (CROPPED, GREY):
        for name, body in files(side).items():
            image_decoder = Decoder(wanted)
            probe = image_decoder.probe(body)
            assert (probe.pixels, probe.small) == (side * side, side <= 64), name
            assert (image_decoder.decode(body, probe) == image_decoder.decode(body)).all(), name


def test_a_header_that_comes_late_is_left_to_the_decoder() -> None:
    """The event loop reads the first parts of a header only; a thread reads them all."""
    comments = b"\xff\xfe\0\2" * 100
    jpeg, gif = save(scene(40, 40), "JPEG"), save(scene(40, 40), "GIF")
    colours = 13 + (3 << (gif[10] & 7) + 1)
    late = {
        "": jpeg[:2] + comments + jpeg[2:],
        "GIF": gif[:colours] + b"!\xfe" + b"\1x" * 100 + b"\0" + gif[colours:],
    }
    for name, body in late.items():
        image_decoder = Decoder(GREY)
        probe = image_decoder.probe(body)
        assert (probe.name, probe.pixels, probe.small, probe.header) == (name, 1600 if name else 0, False, None)
        assert (image_decoder.decode(body, probe) == image_decoder.decode(gif if name else jpeg)).all()


@pytest.mark.parametrize("size", [10, 30_000])
def test_a_file_that_is_no_image_is_small_if_it_is_short(size: int) -> None:
    assert Decoder(GREY).probe(bytes(size)) == ("", 0, size == 10, None)
