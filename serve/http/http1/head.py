"""The head of an HTTP/1.1 request: parsed by llhttp, and recognised without parsing when the same bytes come again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from serve.config.schema import Limits

END = b"\r\n\r\n"
# Larger bodies are read by the application: it applies back-pressure while they arrive.
MAX_PLAIN_BYTES = 1024 * 1024
KNOWN_HEADS = 512
SEEN_HEADS = 2048  # hashes of heads that have come once, in each of two sets
KNOWN_HEAD_BYTES = 2048  # a longer head is parsed each time
REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) +[^ ]+ HTTP/([0-9]\.[0-9])\r\n")
HOST = re.compile(rb"([\w\-.~!$&'()*+,;=%]*|\[[\w\-.~!$&'()*+,;=:]+\])(:[0-9]*)?")  # RFC 3986, sections 3.2.2 and 3.2.3
FORM = b"multipart/form-data"


class BadRequest(Exception):
    """A request that cannot be read. `status` and `reason` (ASCII, without quotes) are of the response."""

    def __init__(self, status: int, reason: bytes) -> None:
        super().__init__(reason.decode())
        self.status = status
        self.reason = reason


class Head:
    """The head of a request.

    Attributes:
        method, target, version: of the request line; `version` is "1.1" or "1.0".
        fields: names in lower case and values, in the order of the head.
        headers: the fields by name; values of a repeated name are joined by commas (RFC 9110, section 5.3).
        length: bytes of the body, 0 without a body; meaningless if `chunked`.
        keep_alive: whether the client wants to use the connection again.
        expects: whether the client waits for "100 Continue".
        simple: whether it can be refused before its body arrives, and the connection be used again: a POST of HTTP/1.1 with
            a body of known length, for which the client does not wait. No request of a browser's script, which needs the
            headers of CORS.
        known: whether `KnownHeads` keeps it, so that it stands for all requests with the same bytes.
        plain: whether it is simple, with a small uncompressed body that is no form. The hot path reads only these.
    """

    __slots__ = (
        "chunked", "expects", "fields", "headers", "keep_alive", "known", "length", "method", "plain", "simple", "target",
        "version",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, version: str, fields: list[tuple[bytes, bytes]]) -> None:
        """Raises BadRequest for a head that RFC 9110 or RFC 9112 forbid and llhttp accepts."""
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.headers = join_fields(fields)
        self.known = False
        self.keep_alive = self._keeps_alive()
        self.chunked = self._is_chunked()
        # llhttp has checked that it is a number below 2^64; `int` refuses thousands of leading zeros.
        self.length = int(self.headers.get(b"content-length", b"").lstrip(b"0") or b"0")
        self.expects = version != "1.0" and self.headers.get(b"expect", b"").lower() == b"100-continue"
        self._check_host()
        self.simple = (
            method == b"POST"
            and version == "1.1"
            and self.keep_alive
            and b"content-length" in self.headers
            and not self.expects
            and b"origin" not in self.headers
        )
        self.plain = (
            self.simple
            and self.length <= MAX_PLAIN_BYTES
            and b"content-encoding" not in self.headers
            and self.headers.get(b"content-type", b"")[: len(FORM)].lower() != FORM
        )

    def _keeps_alive(self) -> bool:
        """RFC 9112, section 9.3."""
        options = {option.strip().lower() for option in self.headers.get(b"connection", b"").split(b",")}
        return b"close" not in options and (self.version != "1.0" or b"keep-alive" in options)

    def _is_chunked(self) -> bool:
        """RFC 9112, section 6.1: an unknown coding is a 501, and any coding in HTTP/1.0 is faulty framing."""
        codings = self.headers.get(b"transfer-encoding")
        if codings is None:
            return False
        if self.version == "1.0":
            raise BadRequest(400, b"HTTP/1.0 has no Transfer-Encoding")
        if codings.lower() != b"chunked":
            raise BadRequest(501, b"the only Transfer-Encoding offered is chunked")
        return True

    def _check_host(self) -> None:
        """RFC 9112, section 3.2: one Host in every request of HTTP/1.1."""
        count = sum(name == b"host" for name, _ in self.fields)
        if count > 1 or (count == 0 and self.version == "1.1"):
            raise BadRequest(400, b"the request must have exactly one Host header")
        if count and not HOST.fullmatch(self.headers[b"host"]):
            raise BadRequest(400, b"the Host header is malformed")


def join_fields(fields: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields by name; values of a repeated name are joined by commas."""
    headers = dict(fields)
    if len(headers) < len(fields):
        headers = {}
        for name, value in fields:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


class _Fields:
    """Collects what llhttp reports of a head."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))


def parse_head(data: bytes, limits: Limits) -> Head:
    """Parses a head, from its request line to its empty line. Raises BadRequest.

    An Upgrade is ignored, as RFC 9110, section 7.8, allows: the request is answered as if it had not asked for one.
    """
    if len(data) > limits.header_bytes:
        raise BadRequest(431, too_large(limits))
    line = REQUEST_LINE.match(data)
    if line is None:
        raise BadRequest(400, b"malformed HTTP request")
    method, version = line.groups()
    if version not in (b"1.1", b"1.0"):
        raise BadRequest(505, b"only HTTP/1.1 and HTTP/1.0 are offered")
    found = _Fields()
    try:
        HttpRequestParser(found).feed_data(data)
    except HttpParserUpgrade:
        pass
    except HttpParserInvalidMethodError as error:
        raise BadRequest(501, b"unknown method") from error
    except HttpParserError as error:
        raise BadRequest(400, b"malformed HTTP request") from error
    if len(found.fields) > limits.headers:
        raise BadRequest(431, too_large(limits))
    if method == b"CONNECT":
        raise BadRequest(501, b"CONNECT is not offered")
    return Head(method, found.target, version.decode(), found.fields)


def too_large(limits: Limits) -> bytes:
    """The reason of a 431."""
    text = b"more than %d bytes or %d headers, with chunk extensions and trailers; limits.header_bytes, limits.headers"
    return text % (limits.header_bytes, limits.headers)


class KnownHeads:
    """Heads of recent plain requests by their bytes, for all connections of a listener.

    Most clients send the same head with every request. A head is found by the hash of all its bytes and compared with all
    of them, so what was parsed from the same bytes before is what a parser would return now. A head is kept when it comes
    for the second time: heads with an identifier or a time of their own never come again, and would displace the others.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        # Hashes of heads that have come. The older ones are dropped when the recent ones are too many.
        self._recent: set[int] = set()
        self._older: set[int] = set()
        self.get = self._heads.get

    def add(self, data: bytes, head: Head) -> None:
        """Keeps a head that is plain, short and seen before; the oldest one goes if there are too many."""
        if not head.plain or len(data) > KNOWN_HEAD_BYTES:
            return
        digest = hash(data)  # of another head too in rare cases; that one is then kept early
        if digest in self._recent or digest in self._older:
            if len(self._heads) >= KNOWN_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[data] = head
            head.known = True
            return
        if len(self._recent) >= SEEN_HEADS:
            self._older, self._recent = self._recent, set()
        self._recent.add(digest)
