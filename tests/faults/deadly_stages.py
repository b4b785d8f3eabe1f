"""Stages whose worker is killed by certain recordings, for tests of real crashes: those that begin with silence and then one
sample of full scale."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from dictalake.errors import ConfigError
from dictalake.workflow import columns
from dictalake.workflow.stages.emit import Emit
from dictalake.workflow.stages.load import Load
from tests.recordings import make_sound, write_wav

_SILENT = 100


def write_deadly(path: Path, seconds: float = 1.0) -> Path:
    """A recording that kills the worker of DeadlyEmit."""
    sound = make_sound(seconds, seed=99)
    sound[:_SILENT], sound[_SILENT] = 0.0, 1.0
    return write_wav(path, sound)


class DeadlyEmit(Emit):
    """Dies as by a segmentation fault, or as the kernel ends what takes too much memory: no exception, no goodbye."""

    def __call__(self, table: pa.Table) -> pa.Table:
        errors = table["error"].to_pylist()
        for row in range(table.num_rows):
            if errors[row] is None and any(is_deadly(w) for w in columns.read_waveforms(table, row)):
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(table)


class DeadlyLoad(Load):
    """Dies when it meets a recording of a name with ``deadly`` in it."""

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        refused = table["error"].to_pylist() if "error" in table.column_names else [None] * table.num_rows
        for uri, error in zip(table["uri"].to_pylist(), refused, strict=True):
            if error is None and "deadly" in uri:
                os.kill(os.getpid(), signal.SIGKILL)
        yield from super().__call__(table)


def is_deadly(waveform: np.ndarray) -> bool:
    return len(waveform) > _SILENT and not waveform[:_SILENT].any() and waveform[_SILENT] >= 32_000


class DiesBetweenTables(Load):
    """Dies after its first table, as often as the file DEATHS beside the archive says."""

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        deaths = Path(str(self._archive.uri).removeprefix("file://")).parent / "DEATHS"
        for part in super().__call__(table):
            yield part
            left = int(deaths.read_text(encoding="ascii"))
            if left:
                deaths.write_text(str(left - 1), encoding="ascii")
                os.kill(os.getpid(), signal.SIGKILL)


class KillsItsRunner(DeadlyLoad):
    """Once in a run, after the first table of an archive object or of anything else, it kills a runner of the same Ray."""

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        once = Path(str(self._archive.uri).removeprefix("file://")).parent / "KILLED"
        is_packed = any(uri.endswith(".zip") for uri in table["uri"].to_pylist())
        for part in super().__call__(table):
            yield part
            if is_packed and not once.exists():
                once.touch()
                kill_a_runner()


def kill_a_runner() -> None:
    """Workers and runners of one Ray have the same parent."""
    for process in psutil.Process(os.getppid()).children():
        if " ".join(process.cmdline()).startswith("ray::Runner"):
            process.kill()
            return
    raise AssertionError("no runner is there")


class RefusesToOpen:
    """A stage that says at its first block what is wrong with the configuration."""

    def __init__(self, *arguments: object) -> None: ...

    def __call__(self, table: pa.Table) -> pa.Table:
        raise ConfigError("acoustic.model: not this one")
