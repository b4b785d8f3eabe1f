"""The CPUs and the memory that a run may use on this machine, or in this container."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """``free_bytes`` counts what the kernel would give back from its cache."""

    cpus: int
    memory_bytes: int
    free_bytes: int


def look_at_machine(cgroup: Path | None = None) -> Machine:
    """CPUs and memory of this machine, or of the container where it has less. Ray uses the same limits.

    ``cgroup`` is the folder in which the kernel shows the limits (version 2 or 1), by default the container's own.
    """
    cgroup = cgroup or CGROUP
    memory, cpus = psutil.virtual_memory(), os.cpu_count() or 1
    total, free = memory.total, memory.available
    for limit_file, used_file, stat_file, cache_key in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        for limit in _read_numbers(cgroup / limit_file):
            cache = dict(line.split() for line in _read_lines(cgroup / stat_file)).get(cache_key, 0)
            used = sum(_read_numbers(cgroup / used_file)) - int(cache)
            total, free = min(total, limit), max(0, min(free, limit - used))
    quota = _read_numbers(cgroup / "cpu.max") or [
        number for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for number in _read_numbers(cgroup / "cpu" / name)
    ]
    if len(quota) == 2 and quota[1]:  # of which the first is "max" or negative where there is no limit
        cpus = min(cpus, max(1, quota[0] // quota[1]))
    return Machine(cpus, total, free)


def _read_numbers(file: Path) -> list[int]:
    """The numbers in a file of the kernel. A missing file has none, and "max" (no limit) is not a number."""
    return [int(word) for line in _read_lines(file) for word in line.split() if word.isdigit()]


def _read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="ascii").splitlines() if file.is_file() else []
