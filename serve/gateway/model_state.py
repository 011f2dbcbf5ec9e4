"""One model of the catalog: its wanted and its serving configuration, and why they differ. Never waits for other models."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from convoy.errors import ConvoyError, reason_of
from serve.config.schema import ModelConfig
from serve.gateway.catalog_loader import close_endpoints
from serve.gateway.endpoints import ModelEndpoint

FIRST_PAUSE_SECONDS = 1.0  # before the first retry of a failed load; doubled for each further one
LONGEST_PAUSE_SECONDS = 60.0  # never given up: a host may start late, a disk may be mounted again

Forms = tuple[ModelEndpoint, ...]

log = logging.getLogger("convoy.repository")


class ModelState:
    """Brings the wanted configuration into service, and retries until it serves. Lives on one event loop.

    Until the wanted configuration serves, the previous one does.
    """

    def __init__(
        self,
        load: Callable[[ModelConfig], Awaitable[Forms]],
        on_swap: Callable[[], None],
        on_settled: Callable[[], None],
    ) -> None:
        """`on_swap` is called when `serving` has changed, `on_settled` when the wanted configuration serves or has failed."""
        self.wanted: ModelConfig | None = None
        self.serving: Forms = ()
        self.problem = ""  # why the last load of the wanted configuration failed
        self.settled = asyncio.Event()  # the wanted configuration serves, or has failed since the last call of `want`
        self.settled.set()
        self._load = load
        self._on_swap = on_swap
        self._on_settled = on_settled
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def want(self, config: ModelConfig | None) -> None:
        """Sets the wanted configuration; None unloads the model. The same one again retries a failed load at once."""
        if config != self.wanted:
            self.problem = ""
        self.wanted = config
        if self._task is None and self._is_fulfilled():
            return
        self.settled.clear()
        self._asked.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    def close(self) -> None:
        """Stops retrying; the serving configuration stays."""
        if self._task is not None:
            self._task.cancel()

    def _is_fulfilled(self) -> bool:
        if not self.serving:
            return self.wanted is None
        return self.serving[0].config == self.wanted and not any(form.trouble for form in self.serving)

    async def _work(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._is_fulfilled():
            self._asked.clear()
            problem = await self._fulfil(self.wanted)
            if problem and not self._asked.is_set():
                self._settle(problem)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            if self._asked.is_set():
                pause = FIRST_PAUSE_SECONDS
            elif not problem:
                break  # loaded; if its engine fails immediately, the next call of `want` loads it again
        self._task = None
        self._settle("")

    async def _fulfil(self, wanted: ModelConfig | None) -> str:
        """Loads the wanted configuration, swaps it in, then frees the previous one. Returns the error text, or an empty one."""
        try:
            forms = await self._load(wanted) if wanted else ()
        except Exception as error:  # any error of an artifact or an engine concerns this model only
            problem = reason_of(error)
            if problem != self.problem:
                log.warning("%s could not be loaded: %s", wanted and wanted.name, problem, exc_info=_fault(error))
            return problem
        if wanted != self.wanted:
            await _free(forms)
            return ""
        previous, self.serving = self.serving, forms
        self._on_swap()
        await _free(previous)
        return ""

    def _settle(self, problem: str) -> None:
        self.problem = problem
        self.settled.set()
        self._on_settled()


def _fault(error: Exception) -> Exception | None:
    """The error whose traceback belongs in the log; None for a ConvoyError, whose text suffices."""
    return None if isinstance(error, ConvoyError) else error


async def _free(forms: Forms) -> None:
    try:
        await close_endpoints(forms)
    except Exception:  # the model does not serve any more in any case
        log.exception("%s could not be freed", forms[0].name)
