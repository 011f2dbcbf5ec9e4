"""Energy accounting of a simulated machine whose energy use is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serve.energy.accountant import Accountant
from serve.energy.prices import FILE, read_prices
from serve.node.collector import MetricsCollector
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import EngineTime, Metrics, ModelRecorder
from tests.serve.energy.simulated import Machine

COUNTED = {"chip": "package-0", "source": "rapl"}


class Node:
    """A node's folder with one metrics file, a simulated machine and its accountant."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.folder = folder
        self.machine = machine
        self.metrics = Metrics(MmapWriter(folder / "metrics"))
        self.engines = {name: EngineTime(self.metrics, name, "1", units=1) for name in ("a", "b")}
        self.accountant = self.new_accountant()

    def new_accountant(self) -> Accountant:
        machine = self.machine
        return Accountant([machine], self.metrics, machine.busy_cores, machine.clock)

    def run(self, seconds: float, other: float = 0.0, **work: float) -> None:
        """A tick in which engines and other processes used the cores."""
        self.machine.pass_time(seconds, other + sum(work.values()))
        for name, amount in work.items():
            self.engines[name].add(amount)
        self.accountant.tick()

    def rest(self) -> None:
        for _ in range(6):
            self.run(1.0)

    def read(self) -> CollectorRegistry:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(MetricsCollector(self.folder / "metrics"))
        return registry

    def joules(self, part: str, model: str = "", arm: tuple[str, str] = ("", "")) -> float:
        labels = COUNTED | {"method": "estimated", "part": part, "model": model, "version": "1" if model else ""}
        labels |= {"experiment": arm[0], "arm": arm[1]}
        return self.read().get_sample_value("convoy_energy_joules_total", labels) or 0.0

    def counter(self) -> float:
        value = self.read().get_sample_value("convoy_chip_energy_joules_total", COUNTED | {"method": "measured"})
        assert value is not None
        return value


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, Machine())


ticks = st.lists(
    st.tuples(st.floats(0.05, 5), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=12
)


@settings(max_examples=25, deadline=None)
@given(ticks)
def test_models_idle_and_other_add_up_to_the_counter(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[tuple[float, float, float, float]]
) -> None:
    node = Node(tmp_path_factory.mktemp("node"), Machine())
    for seconds, other, a, b in ticks:
        node.run(seconds, other * seconds, a=a * seconds, b=b * seconds)
    parts = node.joules("idle") + node.joules("other") + node.joules("model", "a") + node.joules("model", "b")
    assert parts == pytest.approx(node.counter(), rel=0.02)
    assert node.counter() == pytest.approx(node.machine.joules_used)


def test_two_models_at_the_same_time_get_the_joules_that_each_gets_alone(node: Node) -> None:
    node.rest()
    for _ in range(20):
        node.run(1.0, a=0.6)
    alone_a = node.joules("model", "a")
    for _ in range(20):
        node.run(1.0, b=0.3)
    alone_b = node.joules("model", "b")
    for _ in range(20):
        node.run(1.0, a=0.6, b=0.3)
    assert node.joules("model", "a") - alone_a == pytest.approx(alone_a, rel=0.1)
    assert node.joules("model", "b") - alone_b == pytest.approx(alone_b, rel=0.1)
    assert alone_a == pytest.approx(20 * 0.6 * node.machine.per_core, rel=0.1)


@settings(max_examples=10, deadline=None)
@given(st.permutations([("a", 0.4), ("a", 0.2), ("b", 0.3), ("b", 0.1), ("", 0.5)]))
def test_the_order_of_events_does_not_change_attribution(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, float]]
) -> None:
    node = Node(tmp_path_factory.mktemp("node"), Machine())
    node.rest()
    for name, amount in events:
        node.run(1.0, other=0.0 if name else amount, **({name: amount} if name else {}))
    per_core = node.machine.per_core
    assert node.joules("model", "a") == pytest.approx(0.6 * per_core, rel=0.02)
    assert node.joules("model", "b") == pytest.approx(0.4 * per_core, rel=0.02)
    assert node.joules("other") == pytest.approx(0.5 * per_core, rel=0.02)


def test_other_processes_get_no_idle_energy_and_models_get_no_energy_of_others(node: Node) -> None:
    node.rest()
    for _ in range(10):
        node.run(1.0, other=1.0, a=0.5)
    assert node.joules("model", "a") == pytest.approx(10 * 0.5 * 20, rel=0.02)
    assert node.joules("other") == pytest.approx(10 * 1.0 * 20, rel=0.02)


def test_the_arms_of_an_experiment_get_their_shares(node: Node) -> None:
    node.rest()
    recorder = ModelRecorder(node.metrics, "a-tensor", "1", engine="a")
    recorder.engine_share(0.3, "digits", "control")
    recorder.engine_share(0.1)
    node.run(1.0, a=0.4)
    control, direct = node.joules("model", "a", ("digits", "control")), node.joules("model", "a")
    assert control == pytest.approx(3 * direct)
    assert control + direct == pytest.approx(0.4 * 20, rel=0.02)


def test_a_restarted_node_agent_continues_the_counters_and_keeps_the_idle_power(node: Node) -> None:
    node.rest()
    node.run(1.0, a=0.5)
    before = node.joules("model", "a")
    node.machine.pass_time(3.0, 0.0)  # no accountant was running
    node.accountant = node.new_accountant()
    node.run(1.0, a=0.5)
    assert node.joules("model", "a") == pytest.approx(2 * before, rel=0.01)
    assert node.counter() == pytest.approx(node.machine.joules_used - 3.0 * node.machine.idle)


def test_a_lost_source_leaves_no_gauge_and_is_logged_once(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.run(1.0)
    power = COUNTED | {"method": "measured"}
    assert node.read().get_sample_value("convoy_power_watts", power) == 30.0
    used = node.counter()
    node.machine.gone = True
    node.run(1.0)
    node.run(1.0)
    assert node.read().get_sample_value("convoy_power_watts", power) is None
    assert node.counter() == used
    assert caplog.text.count("package-0") == 1


def test_without_sources_only_cpu_time_is_reported(tmp_path: Path) -> None:
    machine = Machine()
    metrics = Metrics(MmapWriter(tmp_path / "metrics"))
    accountant = Accountant([], metrics, machine.busy_cores, machine.clock)
    machine.pass_time(1.0, 0.5)
    accountant.tick()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(tmp_path / "metrics"))
    names = {sample.name for family in registry.collect() for sample in family.samples}
    assert not any("joules" in name or "watts" in name for name in names)
    assert registry.get_sample_value("convoy_node_busy_core_seconds_total") == 0.5
    assert read_prices(metrics.folder).models == {}


def test_the_energy_of_requests_adds_up_to_that_of_their_model(node: Node) -> None:
    node.rest()
    recorder = ModelRecorder(node.metrics, "a", "1")
    for busy in (0.2, 0.9, 0.05):
        recorder.engine_share(1.5 * busy)  # including the call to a host
        node.run(1.0, a=busy)
    price = read_prices(node.metrics.folder).models["a"]
    assert price.joules_per_second * 1.5 * 0.05 == pytest.approx(0.05 * node.machine.per_core, rel=0.02)
    assert price.source == "rapl"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"models": 3, "idle_watts": {}}'])
def test_an_unreadable_file_holds_no_prices(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read_prices(tmp_path).models == {}
