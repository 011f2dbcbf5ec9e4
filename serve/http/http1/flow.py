"""Flow control of a connection, in both directions."""

from __future__ import annotations

import asyncio


class Flow:
    """Pauses reading while the server cannot use more bytes, and writers while the client does not read."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unsent = 0  # bytes in the write buffer at the last look
        self._stalled_since = 0.0
        self.read_paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.write_paused = False

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.set()

    async def drain(self) -> None:
        """Waits until the client has read enough."""
        await self._writable.wait()

    def is_stalled(self, now: float, seconds: float) -> bool:
        """Whether the client has read nothing for longer than `seconds`. `now`: the event loop's time, at each look."""
        unsent = self._transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._stalled_since = unsent, now
            return False
        return now - self._stalled_since > seconds
