"""Energy sources: RAPL zones, GPUs, declared power, and CPU time from the kernel."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.config.schema import Power
from serve.energy.declared_model import DeclaredMachine
from serve.energy.discovery import find_sources
from serve.energy.nvml import Gpu, find_gpus
from serve.energy.rapl import find_rapl
from serve.energy.source import SourceGone
from serve.telemetry.proc import busy_core_seconds, machine_cores
from tests.serve.energy.simulated import RANGE_UJ, Driver, write_zone


def test_packages_and_memory_are_found_once_each(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 0, cap_uw=95_000_000)
    write_zone(tmp_path, "intel-rapl:0:0", "core", 0)
    write_zone(tmp_path, "intel-rapl:0:1", "dram", 0)
    write_zone(tmp_path, "intel-rapl:1", "psys", 0)
    write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    (tmp_path / "intel-rapl").mkdir()  # the control type, which has no counter
    zones = find_rapl(tmp_path)
    assert [(zone.chip, zone.cap_watts) for zone in zones] == [("package-0", 95.0), ("package-0-dram", None)]


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(0, RANGE_UJ - 1),
    steps=st.lists(st.integers(0, RANGE_UJ - 1), min_size=1, max_size=20),
)
def test_a_wrapped_counter_continues(tmp_path_factory: pytest.TempPathFactory, start: int, steps: list[int]) -> None:
    root = tmp_path_factory.mktemp("powercap")
    folder = write_zone(root, "intel-rapl:0", "package-0", start)
    (zone,) = find_rapl(root)
    counter = start
    for count, step in enumerate(steps, 1):
        counter = (counter + step) % RANGE_UJ
        (folder / "energy_uj").write_text(str(counter))
        assert zone.joules() == pytest.approx(sum(steps[:count]) / 1e6)


def test_a_lost_zone_raises_source_gone(tmp_path: Path) -> None:
    folder = write_zone(tmp_path, "intel-rapl:0", "package-0", 5)
    (zone,) = find_rapl(tmp_path)
    (folder / "energy_uj").unlink()
    with pytest.raises(SourceGone, match="energy_uj"):
        zone.joules()


def test_the_log_line_of_an_unreadable_counter_names_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 5)

    def refuse(self: Path, *args: object) -> str:  # root may read everything, so the error is raised here
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)
    with caplog.at_level(logging.WARNING):
        assert find_rapl(tmp_path) == []
    assert "chmod a+r" in caplog.text


def test_a_folder_without_the_files_is_not_a_source(tmp_path: Path) -> None:
    assert find_rapl(tmp_path / "absent") == []
    (tmp_path / "intel-rapl:0").mkdir()
    assert find_rapl(tmp_path) == []


def gpu(**values: float) -> Gpu:
    return Gpu(Driver([values]), 0)


def test_the_counter_of_a_gpu_is_converted_to_joules() -> None:
    driver = Driver([{"millijoules": 1e6, "milliwatts": 60_000, "limit": 250_000}])
    (found,) = find_gpus(driver)
    driver.gpus[0]["millijoules"] += 90_000
    assert found.joules() == pytest.approx(90.0)
    assert (found.cap_watts, found.chip, found.device) == (250.0, "gpu0", "cuda:0")


def test_a_reloaded_driver_does_not_reset_the_total() -> None:
    driver = Driver([{"millijoules": 1000.0}])
    (found,) = find_gpus(driver)
    for counter in (5000.0, 10.0, 1010.0):
        driver.gpus[0]["millijoules"] = counter
        joules = found.joules()
    assert joules == pytest.approx(5.0)


def test_the_power_of_a_gpu_without_a_counter_is_integrated() -> None:
    times = iter([0.0, 2.0, 3.0])
    found = Gpu(Driver([{"milliwatts": 50_000}]), 0, lambda: next(times))
    assert found.joules() == pytest.approx(100.0)
    assert found.joules() == pytest.approx(150.0)


def test_an_unsupported_value_of_a_gpu_is_none_and_not_zero() -> None:
    state = gpu(millijoules=1.0).state()
    assert (state.power_watts, state.utilization, state.memory_used) == (None, None, None)


def test_without_a_driver_there_are_no_gpus_and_a_lost_driver_raises_source_gone() -> None:
    driver = Driver([{"millijoules": 1.0}])
    (found,) = find_gpus(driver)
    driver.broken = True
    assert find_gpus(driver) == []
    with pytest.raises(SourceGone, match="gpu0"):
        found.joules()


def test_declared_power_follows_the_busy_cores() -> None:
    now, used = [10.0], [3.0]
    machine = DeclaredMachine(40, 100, 4, lambda: used[0], lambda: now[0])
    now[0], used[0] = 20.0, 23.0  # two of four cores for ten seconds
    assert machine.joules() == pytest.approx(40 * 10 + 60 / 4 * 20)
    assert machine.method == "modelled"


def test_declared_watts_are_used_only_without_a_counter(tmp_path: Path) -> None:
    power = Power(idle_watts=40, busy_watts=100)
    assert [found.source for found in find_sources(power, [], tmp_path)] == ["declared"]
    write_zone(tmp_path, "intel-rapl:0", "package-0", 5)
    assert [found.source for found in find_sources(power, [], tmp_path)] == ["rapl"]


def test_a_machine_without_counters_and_declared_power_has_no_source(tmp_path: Path) -> None:
    assert find_sources(Power(), [], tmp_path) == []


def test_the_kernel_reports_cpu_time_and_cores() -> None:
    before = busy_core_seconds()
    assert before > 0
    assert busy_core_seconds() >= before
    assert machine_cores() >= 1


def test_idle_waiting_and_stolen_time_is_not_busy(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 50 900 70 0 0 30 40 0\ncpu0 1 0 0 0 0 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0 0 0\nintr 1\n")
    assert busy_core_seconds(stat) == 1.5
    assert machine_cores(stat) == 2
