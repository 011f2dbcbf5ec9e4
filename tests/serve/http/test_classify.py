"""Classification requests over HTTP: bodies and options in every format."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput, TooLarge
from serve.api.classify_params import ClassifyParams
from serve.gateway.endpoints import Endpoint
from serve.http.classify import ClassifyCall, parse_classify

MODEL = cast(Endpoint, SimpleNamespace(name="model", most_images=64))


def parse(body: bytes, kind: bytes = b"", query: bytes = b"", **headers: bytes) -> ClassifyCall:
    asked = {b"content-type": kind} | {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return asyncio.run(parse_classify(query, asked, body, MODEL))


@given(
    st.binary(max_size=300),
    st.sampled_from([b"application/json", b"multipart/form-data; boundary=x", b"image/png", b""]),
)
def test_any_body_is_parsed_or_refused(body: bytes, kind: bytes) -> None:
    with contextlib.suppress(InvalidInput, TooLarge):
        assert all(isinstance(image, bytes) for image in parse(body, kind).images)


def form(fields: dict[str, str]) -> bytes:
    parts = [f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    file = '--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\npng\r\n'
    return "".join([*parts, file, "--x--\r\n"]).encode()


def test_options_are_the_same_in_a_query_a_form_and_json() -> None:
    expected = ClassifyParams(top_k=3, threshold=0.25, labels=False, id="mine")
    fields = {"top_k": "3", "threshold": "0.25", "labels": "false", "id": "mine"}
    query = "&".join(f"{name}={value}" for name, value in fields.items()).encode()
    document: dict[str, Any] = {"images": ["cG5n"], "top_k": 3, "threshold": 0.25, "labels": False, "id": "mine"}
    for call in (
        parse(b"png", query=query),
        parse(form(fields), b"multipart/form-data; boundary=x"),
        parse(orjson.dumps(document), b"application/json"),
    ):
        assert (call.images, call.options) == ([b"png"], expected)


@pytest.mark.parametrize("parameter", ["charset", "Charset ", "charset*", "charset*0"])
@pytest.mark.parametrize(
    "charset", ["undefined", "idna", "unicode_escape", "utf-16", '"undefined"', "utf-8''undefined"]
)
def test_a_form_is_utf_8_whatever_charset_it_names(parameter: str, charset: str) -> None:
    kind = f"multipart/form-data; {parameter}={charset}; boundary=x".encode()
    body = form({"id": "mine", "unit": "\\ud800 é"})
    call = parse(body, kind)
    assert (call.options.id, call.fields["unit"]) == ("mine", "\\ud800 é")
    assert parse(body, f'multipart/form-data; boundary="x";{parameter}={charset}'.encode()).fields == call.fields


def test_a_form_that_is_cut_off_is_refused() -> None:
    """The parser would leave out the file that is cut off, and the answer would lack an image."""
    file = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\npng\r\n'
    body = file * 2 + b"--x--"
    kind = b"multipart/form-data; boundary=x"
    assert parse(body, kind).images == [b"png"] * 2
    for end in range(len(body)):
        with pytest.raises(InvalidInput):
            parse(body[:end], kind)


def test_a_defect_of_a_form_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidInput, match="malformed form"):
        parse(b"--x\nContent", b"multipart/form-data; boundary=x")
    assert caplog.records == []


def test_the_body_overrides_the_query_and_the_query_the_headers() -> None:
    body = orjson.dumps({"images": [], "top_k": 2})
    assert parse(body, b"application/json", b"top_k=9&id=query", x_request_id=b"header").options == ClassifyParams(
        top_k=2, id="query"
    )
    assert parse(b"png", x_request_id=b"header").options.id == "header"


@pytest.mark.parametrize(
    ("query", "document"),
    [
        (b"top_k=0", {"top_k": 0}),
        (b"top_k=1.5", {"top_k": 1.5}),
        (b"top_k=%C2%B2", {"top_k": True}),
        (b"threshold=1.01", {"threshold": 1.01}),
        (b"threshold=-0.1", {"threshold": -0.1}),
        (b"threshold=nan", {"threshold": "0.5"}),
        (b"labels=yes", {"labels": 1}),
        (b"id=%0A", {"id": 7}),
        (b"id=" + b"x" * 129, {"id": "x" * 129}),
    ],
)
def test_invalid_options_are_refused_by_name(query: bytes, document: dict[str, Any]) -> None:
    name = next(iter(document))
    with pytest.raises(InvalidInput, match=name):
        parse(b"png", query=query)
    with pytest.raises(InvalidInput, match=name):
        parse(orjson.dumps({"images": ["cG5n"]} | document), b"application/json")
