"""The properties of this machine's CPU that an engine depends on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
# Prefixes of the CPU flags by which engines choose their kernels. Other flags must not change the keys of stored engines.
ISA = ("avx", "amx", "fma", "sse4", "asimd", "sve", "i8mm", "bf16", "fphp")


def hardware() -> dict[str, Any]:
    """Architecture, CPU name and the flags in `ISA`; JSON-ready, part of the recipe of a stored engine."""
    return {"machine": platform.machine(), "cpu": cpu_name(), "flags": sorted(cpu_flags())}


def cpu_name() -> str:
    """The CPU's model name, or its architecture where Linux does not tell the name."""
    return _line("model name") or platform.machine()


def cpu_flags() -> frozenset[str]:
    """The instruction set extensions of the CPU that change engines, as named in /proc/cpuinfo."""
    flags = (_line("flags") or _line("Features")).split()
    return frozenset(flag for flag in flags if flag.startswith(ISA))


def multiplies_int8() -> bool:
    """Whether the CPU accumulates 8-bit products in 32 bits (VNNI, AMX, Arm's dot product).

    Other x86 CPUs add pairs of products in 16 bits (`vpmaddubsw`), which saturates: weights then have to fit into 7 bits.
    """
    flags = cpu_flags()
    return bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}) or platform.machine() == "aarch64"


def _line(key: str) -> str:
    """The first value of a key of /proc/cpuinfo; empty if there is none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
