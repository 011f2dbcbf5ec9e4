"""Legal but unusual requests, and illegal ones, as RFC 9110 and RFC 9112 read them: on both paths, however they are split."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.config.schema import Limits
from tests.serve.conversations import Answer, talk

LIMITS = Limits(header_bytes=4096, headers=30)
NEXT = b"GET /next HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
PATHS = ("/hot", "/cold")


def request(
    *fields: bytes, line: bytes = b"POST PATH HTTP/1.1", body: bytes = b"", host: bytes = b"host: here"
) -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *fields, b"", body])


def sized(body: bytes, *fields: bytes, **changes: bytes) -> bytes:
    return request(b"content-length: %d" % len(body), *fields, body=body, **changes)


def in_chunks(coded: bytes, *fields: bytes) -> bytes:
    return request(b"transfer-encoding: chunked", *fields, body=coded)


@dataclass(frozen=True)
class Legal:
    """A request that must be answered with `body` echoed, and with `headers` seen by the application."""

    sent: bytes
    body: str = "abc"
    headers: tuple[tuple[str, str], ...] = ()
    keeps_open: bool = True


LEGAL = {
    "a length": Legal(sized(b"abc")),
    "no body": Legal(request(b"content-length: 0"), ""),
    "neither length nor coding": Legal(request(), ""),
    "an absolute target, whose host counts": Legal(sized(b"abc", line=b"POST http://elsewhere:80PATH HTTP/1.1")),
    "empty lines before the request": Legal(b"\r\n\r\n" + sized(b"abc")),
    "names and values in any case": Legal(request(b"CoNtEnT-LeNgTh: 3", b"CONNECTION: Keep-Alive", body=b"abc")),
    "white space around values": Legal(sized(b"abc", b"x-one: \t one \t "), headers=(("x-one", "one"),)),
    "no white space before values": Legal(sized(b"abc", b"x-one:one"), headers=(("x-one", "one"),)),
    "an empty value": Legal(sized(b"abc", b"x-one:"), headers=(("x-one", ""),)),
    "a repeated header": Legal(sized(b"abc", b"accept: a", b"accept: b"), headers=(("accept", "a, b"),)),
    "obs-text in a value": Legal(sized(b"abc", b"x-one: \xe4\xff"), headers=(("x-one", "\xe4\xff"),)),
    "a length with leading zeros": Legal(request(b"content-length: 0003", body=b"abc")),
    "chunks": Legal(in_chunks(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")),
    "hexadecimal in both cases": Legal(in_chunks(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), "0123456789" * 2),
    "zeros before a chunk's size": Legal(in_chunks(b"0003\r\nabc\r\n000\r\n\r\n")),
    "chunk extensions": Legal(in_chunks(b'3;a=b;c="d e"\r\nabc\r\n0;last\r\n\r\n')),
    "white space before an extension": Legal(in_chunks(b"3 ; a=b\r\nabc\r\n0\r\n\r\n")),
    "trailers": Legal(in_chunks(b"3\r\nabc\r\n0\r\nx-one: 1\r\ncontent-length: 7\r\n\r\n")),
    "chunks of no bytes": Legal(in_chunks(b"0\r\n\r\n"), ""),
    "transfer-encoding in any case": Legal(request(b"Transfer-Encoding: ChunkeD", body=b"3\r\nabc\r\n0\r\n\r\n")),
    "an upgrade": Legal(sized(b"abc", b"connection: upgrade", b"upgrade: h2c")),
    "an upgrade of chunks": Legal(
        in_chunks(b"3\r\nabc\r\n0\r\n\r\n", b"connection: upgrade, keep-alive", b"upgrade: websocket")
    ),
    "100-continue with a body": Legal(sized(b"abc", b"expect: 100-continue")),
    "100-continue without a body": Legal(request(b"expect: 100-continue"), ""),
    "the last of a connection": Legal(sized(b"abc", b"connection: close"), keeps_open=False),
    "close among other options": Legal(sized(b"abc", b"connection: x, close"), keeps_open=False),
    "HTTP/1.0": Legal(sized(b"abc", line=b"POST PATH HTTP/1.0", host=b""), keeps_open=False),
    "HTTP/1.0 that stays open": Legal(sized(b"abc", b"connection: keep-alive", line=b"POST PATH HTTP/1.0", host=b"")),
    "an empty host": Legal(sized(b"abc", host=b"host:")),
    "an IPv6 host": Legal(sized(b"abc", host=b"host: [::1]:8000")),
    "a body that looks like a request": Legal(sized(NEXT), NEXT.decode()),
}

ILLEGAL = {
    "a length and chunks": (request(b"content-length: 3", b"transfer-encoding: chunked", body=b"0\r\n\r\n"), 400),
    "chunks and a length": (request(b"transfer-encoding: chunked", b"content-length: 3", body=b"0\r\n\r\n"), 400),
    "two lengths": (request(b"content-length: 3", b"content-length: 4", body=b"abcd"), 400),
    "the same length twice": (request(b"content-length: 3", b"content-length: 3", body=b"abc"), 400),
    "a list of lengths": (request(b"content-length: 3, 3", body=b"abc"), 400),
    "a negative length": (request(b"content-length: -3", body=b"abc"), 400),
    "a length with a sign": (request(b"content-length: +3", body=b"abc"), 400),
    "a hexadecimal length": (request(b"content-length: 0x3", body=b"abc"), 400),
    "an empty length": (request(b"content-length:", body=b"abc"), 400),
    "a length beyond 64 bits": (request(b"content-length: 99999999999999999999", body=b"abc"), 400),
    "an unknown coding": (request(b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "a coding that is not last": (request(b"transfer-encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    "chunked twice": (request(b"transfer-encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    "chunked in two headers": (request(b"transfer-encoding: chunked", b"transfer-encoding: chunked", body=b"0\r\n\r\n"), 400),
    "chunked with a parameter": (request(b"transfer-encoding: chunked;q=1", body=b"0\r\n\r\n"), 400),
    "a coding with a control character": (request(b"transfer-encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    "a coding in HTTP/1.0": (request(b"transfer-encoding: chunked", line=b"POST PATH HTTP/1.0", body=b"0\r\n\r\n"), 400),
    "white space before a colon": (request(b"content-length : 3", body=b"abc"), 400),
    "white space before a name": (request(b" content-length: 3", body=b"abc"), 400),
    "a folded header": (request(b"x-one: a", b" b", body=b""), 400),
    "bare line feeds": (b"POST PATH HTTP/1.1\nhost: here\n\n\r\n\r\n", 400),
    "a bare line feed between headers": (b"POST PATH HTTP/1.1\r\nhost: here\nx-one: 1\r\n\r\n", 400),
    "a bare carriage return in a value": (request(b"x-one: a\rb"), 400),
    "a null character in a value": (request(b"x-one: a\x00b"), 400),
    "a null character in a name": (request(b"x\x00: a"), 400),
    "an empty name": (request(b": a"), 400),
    "a header without a colon": (request(b"x-one"), 400),
    "no host": (request(host=b""), 400),
    "two hosts": (request(b"host: there"), 400),
    "a host with a path": (request(host=b"host: here/there"), 400),
    "a host with a user": (request(host=b"host: me@here"), 400),
    "a list of hosts": (request(host=b"host: here, there here"), 400),
    "a host with white space": (request(host=b"host: he re"), 400),
    "an unknown method": (request(line=b"GROW PATH HTTP/1.1"), 501),
    "a method in lower case": (request(line=b"post PATH HTTP/1.1"), 501),
    "a tunnel": (request(line=b"CONNECT here:80 HTTP/1.1"), 501),
    "HTTP/2.0": (request(line=b"POST PATH HTTP/2.0"), 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET PATH\r\n\r\n", 400),
    "another protocol": (request(line=b"GET PATH RTSP/1.0"), 400),
    "a target with a space": (request(line=b"POST PATH x HTTP/1.1"), 400),
    "a target without a slash": (request(line=b"POST hot HTTP/1.1"), 400),
    "a target with a control character": (request(line=b"POST PATH\x01 HTTP/1.1"), 400),
    "no protocol at all": (b"\x16\x03\x01\x02\x00\x01", 400),
    "a chunk size that is none": (in_chunks(b"x\r\nabc\r\n0\r\n\r\n"), 400),
    "an empty chunk size": (in_chunks(b"\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size with a sign": (in_chunks(b"+3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size with a prefix": (in_chunks(b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size with white space before it": (in_chunks(b" 3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk size beyond 60 bits": (in_chunks(b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": (in_chunks(b"2\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk that ends with a line feed": (in_chunks(b"3\r\nabc\n0\r\n\r\n"), 400),
    "a chunk size that ends with a line feed": (in_chunks(b"3\nabc\r\n0\r\n\r\n"), 400),
    "a control character in an extension": (in_chunks(b"3;a\x00\r\nabc\r\n0\r\n\r\n"), 400),
    "a trailer without a colon": (in_chunks(b"3\r\nabc\r\n0\r\nx-one\r\n\r\n"), 400),
    "a folded trailer": (in_chunks(b"3\r\nabc\r\n0\r\nx-one: a\r\n b\r\n\r\n"), 400),
}  # fmt: skip


def at(path: str, sent: bytes) -> bytes:
    return sent.replace(b"PATH", path.encode())


def split(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({place % len(data) for place in places} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(cuts)]


PLACES = st.lists(st.integers(0, 10_000), max_size=8)


def check_echo(answer: Answer, case: Legal, path: str) -> None:
    assert answer.status == 200
    assert answer.document["path"] == path
    assert answer.document["body"] == case.body
    assert dict(case.headers).items() <= answer.document["headers"].items()
    assert "content-length" not in answer.document["headers"] or answer.document["headers"]["content-length"] != "7"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", LEGAL)
@settings(max_examples=5, deadline=None)
@given(places=PLACES)
def test_legal_requests_are_answered_and_the_next_one_after_them(name: str, path: str, places: list[int]) -> None:
    case = LEGAL[name]
    first, *others = talk(split(at(path, case.sent) + NEXT, places), LIMITS)
    check_echo(first, case, path)
    assert [other.document["path"] for other in others] == (["/next"] if case.keeps_open else [])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ILLEGAL)
@settings(max_examples=5, deadline=None)
@given(places=PLACES)
def test_illegal_requests_are_refused_and_nothing_after_them_is_read(name: str, path: str, places: list[int]) -> None:
    sent, status = ILLEGAL[name]
    answers = talk(split(at(path, sent) + NEXT, places), LIMITS)
    assert [answer.status for answer in answers] == [status]
    assert "error" in answers[0].document


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["a length", "chunks", "100-continue with a body"])
def test_a_client_that_has_closed_its_direction_is_answered(name: str, path: str) -> None:
    case = LEGAL[name]
    (answer,) = talk([at(path, case.sent)], LIMITS, half_close=True)
    check_echo(answer, case, path)


@pytest.mark.parametrize(
    "names", [("a length", "chunks", "an upgrade"), ("100-continue with a body", "trailers", "no body")]
)
@settings(max_examples=20, deadline=None)
@given(places=PLACES, paths=st.lists(st.sampled_from(PATHS), min_size=3, max_size=3))
def test_any_requests_may_be_pipelined(names: tuple[str, ...], places: list[int], paths: list[str]) -> None:
    cases = [LEGAL[name] for name in names]
    sent = b"".join(at(path, case.sent) for path, case in zip(paths, cases, strict=True))
    *answers, last = talk(split(sent + NEXT, places), LIMITS)
    for answer, case, path in zip(answers, cases, paths, strict=True):
        check_echo(answer, case, path)
    assert last.document["path"] == "/next"
