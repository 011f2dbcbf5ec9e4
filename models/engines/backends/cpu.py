"""What of this machine an engine depends on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
ISA = (
    "avx",
    "amx",
    "fma",
    "sse4",
    "asimd",
    "sve",
    "i8mm",
    "bf16",
    "fphp",
)  # beginnings of the flags that kernels are chosen by


def hardware() -> dict[str, Any]:
    """Architecture, name of the CPU and those of its flags that engines choose their kernels by."""
    return {"machine": platform.machine(), "cpu": cpu_name(), "flags": sorted(cpu_flags())}


def cpu_name() -> str:
    return _line("model name") or platform.machine()


def cpu_flags() -> frozenset[str]:
    flags = (_line("flags") or _line("Features")).split()
    return frozenset(flag for flag in flags if flag.startswith(ISA))


def multiplies_int8() -> bool:
    """Whether products of 8 bits are added up in 32 bits (VNNI, AMX, Arm's dot product).

    Elsewhere x86 adds pairs of them in 16 bits, which saturate: weights must then keep to 7 bits.
    """
    flags = cpu_flags()
    return bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}) or platform.machine() == "aarch64"


def _line(key: str) -> str:
    """The first value of a key of /proc/cpuinfo; empty where there is none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
