"""Commits what the workers have finished, every few seconds for as long as they give reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pyarrow as pa

from dictalake import stops
from dictalake.errors import RunError
from dictalake.lake.delta import is_storage_failure
from dictalake.lake.staged_files import StagedFile
from dictalake.lake.table import TranscriptTable
from dictalake.observers.base import Observer
from dictalake.observers.stats import RunStats

_STOPPING = "stopping: what is finished is being committed; Ctrl-C again ends at once"


def commit_as_they_come(
    reports: Iterable[pa.Table | None],
    table: TranscriptTable,
    stats: RunStats,
    observers: Observer,
    every_s: float,
    most_storage_failures: int = 0,
    take_arrived: Callable[[], Iterable[pa.Table]] = tuple,
) -> None:
    """Commits finished files every few seconds, and what is left at the end or when the run is stopped.

    ``reports`` gives None when time passed without a report: what is finished is committed, and the progress lives, while one
    block takes long. ``take_arrived`` gives what finished meanwhile to a run that ends early. A commit that a stop interrupts
    is made again: the table takes no file twice.
    """
    waiting: list[StagedFile] = []
    last_commit = time.monotonic()
    has_given_up = False

    def take_in(report: pa.Table) -> None:
        rows = report.to_pylist()
        waiting.extend([StagedFile.from_row(row) for row in rows])  # first: what may be stopped meanwhile is only counted
        for row in rows:
            stats.add_report(row)
            observers.block_finished()

    def commit_rest() -> None:
        for report in take_arrived():
            take_in(report)
        if waiting:
            _commit(waiting, table, stats)

    try:
        for report in reports:
            if report is not None:
                take_in(report)
            if waiting and time.monotonic() - last_commit >= every_s:
                try:
                    _commit(waiting, table, stats)
                except RunError as error:
                    has_given_up = is_storage_failure(error)
                    raise
                waiting.clear()
                last_commit = time.monotonic()
            require_storage(stats, most_storage_failures)
            observers.time_passed()
    except BaseException as error:
        if stops.is_stop(error):
            observers.step_started(_STOPPING)
        raise
    finally:
        if not has_given_up:  # a commit that has tried for long enough is not tried for as long once more
            try:
                commit_rest()
            except BaseException as error:
                if stops.is_stop(error):  # the first request came only now; those after it are ignored
                    observers.step_started(_STOPPING)
                    commit_rest()
                raise


def _commit(batch: list[StagedFile], table: TranscriptTable, stats: RunStats) -> None:
    started = time.monotonic()
    result = table.commit(batch)
    stats.add_written(result)
    stats.add_commit(sum(len(file.recording_ids) for file in batch), result.storage_retries, time.monotonic() - started)


def require_storage(stats: RunStats, most: int) -> None:
    """Storage that refuses everything would make a failed row of each of millions. Raises RunError."""
    failures = stats.consecutive_storage_failures
    if most and failures >= most:
        reasons = ", ".join(f"{kind}: {count}" for kind, count in stats.failures.most_common(3))
        raise RunError(
            f"the storage of the archive did not give any of the last {failures} recordings ({reasons}): check its "
            "credentials and the network; then run again with --retry-failed, which tries those recordings again too"
        )
