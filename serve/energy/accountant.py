"""Energy accounting: reads every chip's energy counter once a second, splits the joules, and writes metrics and prices."""

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
DECAY = 0.8  # weight of earlier ticks in a model's price, per tick

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
    """Joules of a model and engine seconds of its answered requests, with exponentially decaying weights."""

    joules: float = 0.0
    seconds: float = 0.0
    sources: frozenset[str] = frozenset()


class Accountant:
    """Splits the joules of a node's chips by use. Call `tick` from one thread, at any interval.

    `busy_cores` returns the busy core-seconds of all processes; `clock` returns seconds.
    """

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
        published = read_prices(metrics.folder)  # by an earlier node agent
        self._chips = [
            _Chip(
                source,
                IdlePower(published.idle_watts.get(source.chip) if source.idle_watts is None else None),
                source.joules(),
            )
            for source in sources
        ]
        self._costs: dict[str, _Cost] = defaultdict(_Cost)
        self._prices = dict(published.models)
        self._at = clock()
        self._cores = busy_cores()
        self._usage = self._read()
        for chip in self._chips:
            if chip.source.cap_watts is not None:
                metrics.set(POWER_CAP, chip.source.cap_watts, **chip.labels)

    def tick(self) -> None:
        """Accounts for the time since the last call. Raises OSError when /proc or the metrics folder cannot be used."""
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
        declared = chip.source.idle_watts
        idle_watts = chip.idle.learn(joules / seconds) if declared is None else declared
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
            for user, joules_of_user in share(amount, work.users(model), DIRECT).items():
                self._add(chip, "model", joules_of_user, model, user)

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
            cost.joules = DECAY * cost.joules + joules
            cost.seconds = DECAY * cost.seconds + answered
            self._prices[model.name] = Price(cost.joules / cost.seconds, "+".join(sorted(cost.sources)))

    def _forget(self, chip: _Chip, error: SourceGone) -> None:
        log.warning("the energy counter of %s can no longer be read: %s", chip.source.chip, error)
        self._chips.remove(chip)
        for gauge in (POWER, IDLE_POWER, POWER_CAP):
            self._metrics.set(gauge, float("nan"), **chip.labels)


def keep_account(accountant: Accountant, stopped: threading.Event) -> threading.Thread:
    """Calls `tick` once a second on a thread until `stopped` is set."""

    def run() -> None:
        logged = False
        while not stopped.wait(TICK_SECONDS):
            try:
                accountant.tick()
            except OSError as error:  # the next tick accounts for the time of this one too
                if not logged:
                    log.warning("energy accounting is interrupted: %s", error)
                logged = True

    thread = threading.Thread(target=run, name="accountant", daemon=True)
    thread.start()
    return thread
