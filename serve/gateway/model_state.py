"""One model of the catalog: what is wanted of it, what serves, and why that is not the same. It waits for no other model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from convoy.errors import ConvoyError, reason_of
from serve.config.schema import ModelConfig
from serve.gateway.catalog_loader import close_endpoints
from serve.gateway.endpoints import ModelEndpoint

FIRST_PAUSE_SECONDS = 1.0  # a model that could not be loaded is tried again after so long, then after twice that,
LONGEST_PAUSE_SECONDS = 60.0  # up to this: a host may come late, a disk may be back

Forms = tuple[ModelEndpoint, ...]

log = logging.getLogger("convoy.repository")


class ModelState:
    """Brings what is wanted into service, and tries again until it serves. Lives on one event loop.

    Until the wanted configuration serves, the former one does.
    """

    def __init__(
        self, load: Callable[[ModelConfig], Awaitable[Forms]], swapped: Callable[[], None], told: Callable[[], None]
    ) -> None:
        """`swapped` is called when `serving` has changed, `told` when it is known whether what is wanted serves."""
        self.wanted: ModelConfig | None = None
        self.serving: Forms = ()
        self.problem = ""  # why the wanted configuration could not be loaded the last time
        self.settled = asyncio.Event()  # it serves, or has failed since it was last asked for
        self.settled.set()
        self._load = load
        self._swapped = swapped
        self._told = told
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def want(self, config: ModelConfig | None) -> None:
        """Another wish (None: out of service), or the same one again: what failed is tried at once."""
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
        """Ends the attempts; what serves stays."""
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
                break  # loaded: should it break at once, the next wish loads it anew, and nobody waits for it meanwhile
        self._task = None
        self._settle("")

    async def _fulfil(self, wanted: ModelConfig | None) -> str:
        """Loads, swaps, then frees what is gone. Why that was not possible, if so."""
        try:
            forms = await self._load(wanted) if wanted else ()
        except Exception as error:  # whatever an artifact or an engine raises, it is this model's affair
            problem = reason_of(error)
            if problem != self.problem:
                log.warning("%s could not be loaded: %s", wanted and wanted.name, problem, exc_info=_fault(error))
            return problem
        if wanted != self.wanted:
            await _free(forms)
            return ""
        gone, self.serving = self.serving, forms
        self._swapped()
        await _free(gone)
        return ""

    def _settle(self, problem: str) -> None:
        self.problem = problem
        self.settled.set()
        self._told()


def _fault(error: Exception) -> Exception | None:
    """The error, if its traceback is worth a place in the log: that of an error of ours says nothing more."""
    return None if isinstance(error, ConvoyError) else error


async def _free(forms: Forms) -> None:
    try:
        await close_endpoints(forms)
    except Exception:  # the model is out of service all the same
        log.exception("%s could not be freed", forms[0].name)
