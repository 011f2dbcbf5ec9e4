"""Decodes chunked bodies (RFC 9112, section 7.1): strictly, within a limit, and not a byte further."""

from __future__ import annotations

import re

from serve.http.http1.head import BadRequest

SIZE = re.compile(rb"0*([0-9A-Fa-f]{1,15})[ \t]*(;[^\x00-\x08\x0a-\x1f\x7f]*)?")  # 15 digits: below 2^60
TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")
TINY = 64  # bytes; the framing of a smaller chunk counts as overhead, since each chunk costs work on the event loop
MALFORMED = b"malformed chunked body"


class ChunkedBody:
    """One chunked body. Chunk extensions are ignored, and trailers dropped: they are never headers (RFC 9110, section 6.5.1).

    `overhead` counts the bytes of the head and of everything in the body but the content and the framing of chunks that are
    not tiny, `fields` the headers and trailers; the connection limits both.
    """

    def __init__(self, head_bytes: int, fields: int, most_bytes: int, most_fields: int, refusal: BadRequest) -> None:
        """`refusal` is raised beyond `most_bytes` of overhead or `most_fields` fields."""
        self._overhead = head_bytes
        self._fields = fields
        self._most_bytes = most_bytes
        self._most_fields = most_fields
        self._refusal = refusal
        self._line = b""  # the beginning of a line that has not arrived completely
        self._left = 0  # bytes of the current chunk still to come, with its CRLF
        self._in_trailers = False
        self.complete = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Decodes the next bytes. Returns their content, and how many of them belong to this body. Raises BadRequest."""
        content: list[bytes] = []
        position = 0
        while position < len(data) and not self.complete:
            position = self._read_chunk(data, position, content) if self._left else self._read_line(data, position)
        return b"".join(content), position

    def _read_chunk(self, data: bytes, start: int, content: list[bytes]) -> int:
        stop = min(start + self._left, len(data))
        ending = min(self._left, 2)  # bytes of the CRLF still to come
        content_stop = min(stop, start + self._left - ending)
        if content_stop > start:
            content.append(data[start:content_stop])
        after = data[max(start, content_stop) : stop]
        expected = b"\r\n"[2 - ending :][: len(after)]
        if after != expected:
            raise BadRequest(400, MALFORMED)
        self._left -= stop - start
        return stop

    def _read_line(self, data: bytes, start: int) -> int:
        end = data.find(b"\n", start)
        stop = len(data) if end < 0 else end + 1
        self._line += data[start:stop]
        if self._overhead + len(self._line) > self._most_bytes:
            raise self._refusal
        if end < 0:
            return stop
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise BadRequest(400, MALFORMED)
        if self._in_trailers:
            self._trailer(line)
        else:
            self._size(line)
        return stop

    def _size(self, line: bytes) -> None:
        match = SIZE.fullmatch(line, 0, len(line) - 2)
        if match is None:
            raise BadRequest(400, MALFORMED)
        size = int(match[1], 16)
        minimal = len(b"%x" % size) + 4 if size >= TINY else 0
        self._overhead += len(line) + 2 - minimal
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.complete = True
            return
        if TRAILER.fullmatch(line, 0, len(line) - 2) is None:
            raise BadRequest(400, MALFORMED)
        self._overhead += len(line)
        self._fields += 1
        if self._fields > self._most_fields:
            raise self._refusal
