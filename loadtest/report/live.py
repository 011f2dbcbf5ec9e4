"""Progress on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live


class LiveDisplay:
    """Shows text that replaces itself until the block ends; silent if the output is not a terminal."""

    def __init__(self, console: Console) -> None:
        self.shown = console.is_terminal
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self.shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown:
            self._live.stop()

    def show(self, content: RenderableType) -> None:
        """Replaces what is shown."""
        if self.shown:
            self._live.update(content)

    def refresh(self) -> None:
        """Draws now, without waiting for the next tick."""
        self._live.refresh()
