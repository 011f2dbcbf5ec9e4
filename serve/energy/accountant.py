"""The accountant: each tick reads every chip's counter, splits what was used, and writes metrics and prices."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve.energy.attribution import IdlePower, share, split
from serve.energy.engine_usage import COUNTED, DIRECT, NOBODY, EngineUsage, Model, User
from serve.energy.prices import Price, Prices, read_prices, write_prices
from serve.energy.source import CPU, Source, SourceGone
from serve.telemetry.definitions import CHIP_ENERGY, CPU_BUSY, ENERGY, IDLE_POWER, POWER, POWER_CAP
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import MmapReader
from serve.telemetry.proc import busy_core_seconds
from serve.telemetry.recorder import Metrics

TICK_SECONDS = 1.0
MEMORY = 0.8  # weight of what earlier ticks cost in a model's price

log = logging.getLogger("convoy.power")


@dataclass
class _Chip:
    source: Source
    idle: IdlePower
    joules: float

    @property
    def labels(self) -> dict[str, str]:
        return {"chip": self.source.chip, "source": self.source.source, "method": self.source.method}


@dataclass
class _Cost:
    """Joules of a model and engine seconds of its answered requests, older ticks counting less."""

    joules: float = 0.0
    seconds: float = 0.0
    sources: frozenset[str] = frozenset()


class Accountant:
    """Joules of a node's chips by use; `tick` may be called at any pace, from one thread."""

    def __init__(
        self,
        sources: Sequence[Source],
        metrics: Metrics,
        busy_cores: Callable[[], float] = busy_core_seconds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._files = MmapReader(metrics.folder, COUNTED)
        self._busy_cores = busy_cores
        self._clock = clock
        learnt = read_prices(metrics.folder)
        self._chips = [
            _Chip(one, IdlePower(learnt.idle_watts.get(one.chip) if one.idle_watts is None else None), one.joules())
            for one in sources
        ]
        self._costs: dict[str, _Cost] = defaultdict(_Cost)
        self._prices = dict(learnt.models)
        self._at = clock()
        self._cores = busy_cores()
        self._usage = self._read()
        for chip in self._chips:
            if chip.source.cap_watts is not None:
                metrics.set(POWER_CAP, chip.source.cap_watts, **chip.labels)

    def tick(self) -> None:
        """Accounts for the time since the last call."""
        now, cores, usage = self._clock(), self._busy_cores(), self._read()
        seconds, used = now - self._at, max(0.0, cores - self._cores)
        if seconds <= 0:
            return
        work = usage.since(self._usage)
        self._at, self._cores, self._usage = now, cores, usage
        self._metrics.values(CPU_BUSY)[0] += used
        spent: dict[Model, float] = defaultdict(float)
        for chip in list(self._chips):
            try:
                joules = chip.source.joules()
            except SourceGone as error:
                self._forget(chip, error)
                continue
            self._account(chip, joules - chip.joules, seconds, used, work, spent)
            chip.joules = joules
        self._price(spent, work)
        write_prices(
            self._metrics.folder,
            Prices(self._prices, {c.source.chip: c.idle.watts for c in self._chips if c.idle.watts}),
        )

    def _read(self) -> EngineUsage:
        return EngineUsage.from_totals(total(self._files.read()))

    def _account(
        self, chip: _Chip, joules: float, seconds: float, used: float, work: EngineUsage, spent: dict[Model, float]
    ) -> None:
        known = chip.source.idle_watts
        idle_watts = chip.idle.learn(joules / seconds) if known is None else known
        on_cpu = chip.source.device == CPU
        parts = split(joules, seconds, idle_watts, work.on(chip.source.device), used if on_cpu else None)
        self._metrics.values(CHIP_ENERGY, **chip.labels)[0] += joules
        self._metrics.set(POWER, joules / seconds, **chip.labels)
        self._metrics.set(IDLE_POWER, idle_watts, **chip.labels)
        self._add(chip, "idle", parts.idle)
        self._add(chip, "other", parts.other)
        for model, amount in parts.models.items():
            spent[model] += amount
            self._costs[model.name].sources |= {chip.source.source}
            for user, part in share(amount, work.users(model), DIRECT).items():
                self._add(chip, "model", part, model, user)

    def _add(self, chip: _Chip, part: str, joules: float, model: Model = NOBODY, user: User = DIRECT) -> None:
        labels = chip.labels | {"method": "estimated", "part": part}
        labels |= {"model": model.name, "version": model.version, "experiment": user.experiment, "arm": user.arm}
        self._metrics.values(ENERGY, **labels)[0] += joules

    def _price(self, spent: dict[Model, float], work: EngineUsage) -> None:
        for model, joules in spent.items():
            answered = sum(work.users(model).values())
            if not answered:
                continue
            cost = self._costs[model.name]
            cost.joules = MEMORY * cost.joules + joules
            cost.seconds = MEMORY * cost.seconds + answered
            self._prices[model.name] = Price(cost.joules / cost.seconds, "+".join(sorted(cost.sources)))

    def _forget(self, chip: _Chip, error: SourceGone) -> None:
        log.warning("no more power figures of %s: %s", chip.source.chip, error)
        self._chips.remove(chip)
        for gauge in (POWER, IDLE_POWER, POWER_CAP):
            self._metrics.set(gauge, float("nan"), **chip.labels)


def keep_account(accountant: Accountant, stopped: threading.Event) -> threading.Thread:
    """Ticks on a thread until `stopped`."""

    def run() -> None:
        said = False
        while not stopped.wait(TICK_SECONDS):
            try:
                accountant.tick()
            except OSError as error:  # the next tick accounts for the time of this one
                if not said:
                    log.warning("energy is not accounted for at the moment: %s", error)
                said = True

    thread = threading.Thread(target=run, name="accountant", daemon=True)
    thread.start()
    return thread
