"""The framing of a chunked body: chunk sizes, chunk extensions and trailers (RFC 9112, section 7.1)."""

from __future__ import annotations

TINY = 64  # bytes; the size line of a smaller chunk counts as overhead, since each chunk costs a call on the event loop


class ChunkedBody:
    """Counts the bytes of a request that are neither content nor the minimal framing of its chunks.

    llhttp does not report chunk extensions, and reports a trailer only when it is complete. So the overhead is the bytes received
    minus the bytes accounted for.
    """

    def __init__(self, head_bytes: int, headers: int) -> None:
        self.overhead = head_bytes
        self.fields = headers  # headers and trailers
        self._chunk_bytes = 0  # content of the current chunk so far
        self._accounted = 0  # bytes of the current piece that are content or minimal framing

    def content(self, size: int) -> None:
        """The parser reported `size` bytes of content."""
        self._chunk_bytes += size
        self._accounted += size

    def end_chunk(self) -> None:
        """The parser reached the end of a chunk."""
        if self._chunk_bytes >= TINY:
            self._accounted += len(b"%x" % self._chunk_bytes) + 4  # its size in hexadecimal, and CRLF twice
        self._chunk_bytes = 0

    def received(self, size: int) -> None:
        """A piece of `size` bytes was parsed, all of it part of this body."""
        self.overhead += size - self._accounted
        self._accounted = 0

    def begin(self) -> None:
        """Skips the piece in which the head ended, since the parser does not report where in it the body begins."""
        self._accounted = 0
