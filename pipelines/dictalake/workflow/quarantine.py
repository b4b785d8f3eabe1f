"""Keeps a recording that kills its workers from killing them for ever, and workers with other code out of the run.

Ray restarts a worker that died and runs its block again. A ledger that outlives the workers counts how often each block was
begun and not ended. After two deaths the recordings of a block are run one by one. A recording whose worker dies twice even
then is poison: it gets a failed row, and the others of its block go on as usual. A worker that vanished together with its node
(preemption) does not count.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa

from dictalake.errors import WorkerCrashed
from dictalake.workflow.columns import ERROR
from dictalake.workflow.package_hash import Package, is_own_code, read_own_package, require_same_package
from dictalake.workflow.stages.base import error_row

DEATHS_TOGETHER, DEATHS_ALONE = 2, 2
_MOST_BEGINS, _REMEMBERED = 10, 10_000
_MOST_BLOCKS = 100_000  # keeps the ledger of a long run small: it holds the blocks that died or are in work


Kind = TypeVar("Kind")


@dataclass
class _Begun:
    node: str
    since: float
    recordings: int
    runner: str


class Ledger(Protocol):
    """What ``QuarantiningStage`` needs from a ledger."""

    def begin(self, stage: str, key: str, recordings: int) -> int:
        """Notes that this work begins; returns how often a worker has died on it so far."""
        ...

    def end(self, stage: str, key: str) -> None: ...


class CrashLedger:
    """The counts of all workers, kept in one process. ``alive_nodes`` returns the ids of the nodes that are up now."""

    def __init__(self, alive_nodes: Callable[[], set[str]]) -> None:
        self._alive_nodes = alive_nodes
        self._begun: dict[tuple[str, str], _Begun] = {}
        self._deaths: dict[tuple[str, str], int] = {}
        self._begins: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._dead_runners: set[str] = set()

    def begin(self, stage: str, key: str, recordings: int, node: str, runner: str = "") -> int:
        """As ``Ledger.begin``, for a worker on ``node`` that works for ``runner``."""
        work, before = (stage, key), self._begun.get((stage, key))
        preempted = before is not None and (before.node not in self._alive_nodes() or before.runner in self._dead_runners)
        if before is not None and not preempted and len(self._deaths) < _MOST_BLOCKS:
            self._deaths[work] = self._deaths.get(work, 0) + 1
        self._begun[work] = _Begun(node, time.monotonic(), recordings, runner)
        # A worker may also die after it reported the end of its work, while Ray stores the result: count the begins too.
        begins = self._begins.pop(work, 0) + (not preempted)
        self._begins[work] = begins
        if len(self._begins) > _REMEMBERED:
            self._begins.popitem(last=False)
        return max(self._deaths.get(work, 0), begins - _MOST_BEGINS)

    def end(self, stage: str, key: str) -> None:
        self._begun.pop((stage, key), None)
        self._deaths.pop((stage, key), None)

    def forgive(self, runner: str) -> None:
        """``runner`` died, and its workers with it: not of what they had in work."""
        self._dead_runners.add(runner)

    def in_work(self) -> dict[str, tuple[int, float]]:
        """For each stage the number of recordings in work, and the age of its oldest block in seconds."""
        now = time.monotonic()
        found: dict[str, tuple[int, float]] = {}
        for (stage, _), begun in self._begun.items():
            if begun.runner in self._dead_runners:
                continue
            count, age = found.get(stage, (0, 0.0))
            found[stage] = (count + begun.recordings, max(age, now - begun.since))
        return found


class QuarantiningStage:
    """Runs a stage over blocks; asks ``ledger`` how often each block has killed a worker before.

    It is made by the driver and called in workers. A worker whose dictalake is not the driver's raises ConfigError.
    """

    sent_by: ClassVar[Package | None] = None  # the driver's package, where only the class comes from the driver

    def __init__(self, name: str, stage: Callable[[pa.Table], pa.Table | Iterable[pa.Table]], ledger: Ledger) -> None:
        self._name, self._stage, self._ledger = name, stage, ledger
        self._driver = self.sent_by or read_own_package()
        self._umask = read_umask()

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        require_same_package(self._driver)
        os.umask(self._umask)  # a worker inherits that of Ray, whose files are nobody else's; those of the lake are
        key = make_key(table)
        poison: list[str] = []
        if self._ledger.begin(self._name, key, table.num_rows) < DEATHS_TOGETHER:
            yield from self._run(table)
        else:
            for row in range(table.num_rows):
                yield from self._run_alone(table.slice(row, 1), poison)
        for one in [*poison, key]:
            self._ledger.end(self._name, one)

    def _run_alone(self, row: pa.Table, poison: list[str]) -> Iterator[pa.Table]:
        """Runs one recording. The ledger keeps a poison one until its block is done: another may still end the worker."""
        key = f"alone-{make_key(row)}"
        deaths = self._ledger.begin(self._name, key, 1)
        if deaths < DEATHS_ALONE:
            yield from self._run(row)
        else:
            error = WorkerCrashed(
                row["recording_id"][0].as_py(),
                f"the worker of {self._name} died on it {deaths} times alone, after others had died on its block; it may be "
                "too large for the worker's memory, or trigger a defect of a library",
                self._name,
            )
            yield from self._run(mark_failed(row, error_row(error)))
            poison.append(key)
            return
        self._ledger.end(self._name, key)

    def _run(self, table: pa.Table) -> Iterator[pa.Table]:
        result = self._stage(table)
        if isinstance(result, pa.Table):
            yield result
        else:
            yield from result


class QuarantiningActor(QuarantiningStage):
    """A quarantining stage that opens its model or its language model once, in its actor."""

    def __init__(self, name: str, ledger: Ledger, stage: Callable[..., Any], *arguments: Any) -> None:
        # With other code nothing is opened, and the first call raises: for an error in a constructor, Ray would only report
        # that the actor died.
        is_same = self.sent_by is None or is_own_code(self.sent_by)
        super().__init__(name, stage(*arguments) if is_same else _pass_on, ledger)


def _pass_on(table: pa.Table) -> pa.Table:
    return table


def with_display_name(name: str, kind: type[Kind]) -> type[Kind]:
    """``kind`` under another name, which is the one that Ray shows for the stage and its processes.

    The new class travels to the workers by value, and with it which package the driver has.
    """
    return type(name, (kind,), {"__module__": __name__, "sent_by": read_own_package()})


def read_umask() -> int:
    """This process's umask; on Linux without a moment in which it has another."""
    with suppress(OSError), Path("/proc/self/status").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def make_key(table: pa.Table) -> str:
    """A key for the work on these recordings, the same whenever their block is run again."""
    return blake2b("\n".join(table["recording_id"].to_pylist()).encode(), digest_size=16).hexdigest()


def mark_failed(table: pa.Table, error: dict[str, Any]) -> pa.Table:
    """``table`` with ``error`` in every row; the stages pass such rows on unchanged."""
    column = pa.array([error] * table.num_rows, type=ERROR)
    if "error" in table.column_names:
        return table.set_column(table.column_names.index("error"), pa.field("error", ERROR), column)
    return table.append_column(pa.field("error", ERROR), column)


def end_worker() -> None:
    """Ends this worker's process, whose GPU context is broken. Ray starts another one, and the ledger counts it."""
    os._exit(70)
