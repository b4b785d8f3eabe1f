"""A worker that dies is started again, and so is its block; one recording that kills workers must not do so for ever.

A ledger that outlives the workers counts how often each block was begun and not ended. A block whose worker died twice is run
again one recording at a time; one that kills its worker alone too, twice, becomes a failed row, and all others go on. A worker
whose node went away (preemption) is nobody's fault and does not count.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from dictalake.errors import WorkerCrashed
from dictalake.workflow.columns import ERROR
from dictalake.workflow.stages.base import error_row

DEATHS_TOGETHER, DEATHS_ALONE = 2, 2
_MOST_BEGINS, _REMEMBERED = 10, 10_000
_MOST_BLOCKS = 100_000  # the ledger of a long run stays small: only what died, or is in work, is in it


Kind = TypeVar("Kind")


@dataclass
class _Begun:
    node: str
    since: float
    recordings: int


class Ledger(Protocol):
    """What ``QuarantiningStage`` asks of a ledger."""

    def begin(self, stage: str, key: str, recordings: int) -> int:
        """How often a worker died on this work so far."""
        ...

    def end(self, stage: str, key: str) -> None: ...


class CrashLedger:
    """The counts, in one process for all workers. ``alive_nodes`` gives the ids of the nodes that are there now."""

    def __init__(self, alive_nodes: Callable[[], set[str]]) -> None:
        self._alive_nodes = alive_nodes
        self._begun: dict[tuple[str, str], _Begun] = {}
        self._deaths: dict[tuple[str, str], int] = {}
        self._begins: OrderedDict[tuple[str, str], int] = OrderedDict()

    def begin(self, stage: str, key: str, recordings: int, node: str) -> int:
        """See ``Ledger.begin``; ``node`` is where the worker is."""
        work, before = (stage, key), self._begun.get((stage, key))
        preempted = before is not None and before.node not in self._alive_nodes()
        if before is not None and not preempted and len(self._deaths) < _MOST_BLOCKS:
            self._deaths[work] = self._deaths.get(work, 0) + 1
        self._begun[work] = _Begun(node, time.monotonic(), recordings)
        # A worker may die after it said that it was done, while its result is stored.
        begins = self._begins.pop(work, 0) + (not preempted)
        self._begins[work] = begins
        if len(self._begins) > _REMEMBERED:
            self._begins.popitem(last=False)
        return max(self._deaths.get(work, 0), begins - _MOST_BEGINS)

    def end(self, stage: str, key: str) -> None:
        self._begun.pop((stage, key), None)
        self._deaths.pop((stage, key), None)

    def in_work(self) -> dict[str, tuple[int, float]]:
        """Of each stage how many recordings are in work, and for how many seconds the oldest block is."""
        now = time.monotonic()
        found: dict[str, tuple[int, float]] = {}
        for (stage, _), begun in self._begun.items():
            count, age = found.get(stage, (0, 0.0))
            found[stage] = (count + begun.recordings, max(age, now - begun.since))
        return found


class QuarantiningStage:
    """A stage that is told by ``ledger`` what its blocks have done to workers before."""

    def __init__(self, name: str, stage: Callable[[pa.Table], pa.Table | Iterable[pa.Table]], ledger: Ledger) -> None:
        self._name, self._stage, self._ledger = name, stage, ledger

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        key = make_key(table)
        guilty: list[str] = []
        if self._ledger.begin(self._name, key, table.num_rows) < DEATHS_TOGETHER:
            yield from self._run(table)
        else:
            for row in range(table.num_rows):
                yield from self._run_alone(table.slice(row, 1), guilty)
        for one in [*guilty, key]:
            self._ledger.end(self._name, one)

    def _run_alone(self, row: pa.Table, guilty: list[str]) -> Iterator[pa.Table]:
        """A guilty one is remembered until its block is done: another may end the worker once more."""
        key = f"alone-{make_key(row)}"
        deaths = self._ledger.begin(self._name, key, 1)
        if deaths < DEATHS_ALONE:
            yield from self._run(row)
        else:
            error = WorkerCrashed(
                row["recording_id"][0].as_py(),
                f"the worker of {self._name} died on it {deaths} times alone, after others had died on its block; it may be "
                "too large for the worker's memory, or meet a defect of a library",
                self._name,
            )
            yield from self._run(mark_failed(row, error_row(error)))
            guilty.append(key)
            return
        self._ledger.end(self._name, key)

    def _run(self, table: pa.Table) -> Iterator[pa.Table]:
        result = self._stage(table)
        if isinstance(result, pa.Table):
            yield result
        else:
            yield from result


class QuarantiningActor(QuarantiningStage):
    """A careful stage that opens its model or its language model once, in its actor."""

    def __init__(self, name: str, ledger: Ledger, stage: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(name, stage(*arguments), ledger)


def with_display_name(name: str, kind: type[Kind]) -> type[Kind]:
    """``kind`` under another name: Ray shows a stage and its processes under the name of their class."""
    return type(name, (kind,), {"__module__": __name__})


def make_key(table: pa.Table) -> str:
    """Names the work on these recordings."""
    return blake2b("\n".join(table["recording_id"].to_pylist()).encode(), digest_size=16).hexdigest()


def mark_failed(table: pa.Table, error: dict[str, Any]) -> pa.Table:
    """``table`` with ``error`` in every row: the stages leave such rows alone."""
    column = pa.array([error] * table.num_rows, type=ERROR)
    if "error" in table.column_names:
        return table.set_column(table.column_names.index("error"), pa.field("error", ERROR), column)
    return table.append_column(pa.field("error", ERROR), column)


def end_worker() -> None:
    """Ends this worker's process: what it holds of the GPU is beyond repair. Ray starts another, the ledger counts."""
    os._exit(70)
