"""What a chunked body carries beside its content: sizes, chunk extensions, trailers (RFC 9112, section 7.1)."""

from __future__ import annotations

TINY = 64  # bytes of content; the line of a smaller chunk counts, since each chunk costs a call on the event loop


class ChunkedBody:
    """Counts bytes that are neither content nor the least that framing it takes, those of the request's head among them.

    llhttp reports no chunk extension, and a trailer only when it is whole. So this is the rest: what has arrived, less
    what is explained.
    """

    def __init__(self, head_bytes: int, headers: int) -> None:
        self.extra = head_bytes
        self.fields = headers  # and trailers
        self._size = 0  # of the chunk that arrives
        self._explained = 0

    def content(self, size: int) -> None:
        self._size += size
        self._explained += size

    def end_chunk(self) -> None:
        if self._size >= TINY:
            self._explained += len(b"%x" % self._size) + 4  # its size, and twice CRLF
        self._size = 0

    def arrived(self, size: int) -> None:
        """These bytes were all of the body."""
        self.extra += size - self._explained
        self._explained = 0

    def begin(self) -> None:
        """Bytes that came with the head are not counted: nobody knows where in them the head ended."""
        self._explained = 0
