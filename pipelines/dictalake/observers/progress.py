"""What a run tells while it works: a live bar on a terminal, one plain line a minute elsewhere. Never names, URIs or text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dictalake import logs
from dictalake.errors import AccessDenied, CredentialsExpired, FetchFailed
from dictalake.lake.claims import Lease
from dictalake.lake.table import CommitResult

_LINE_EVERY_S = 60.0
_STORAGE_REASONS = {FetchFailed.reason, AccessDenied.reason, CredentialsExpired.reason}


@dataclass
class RunStats:
    """What a run has done so far. ``wanted`` grows as archive objects tell how many files are in them.

    ``done_before`` says of how many rows of an archive object earlier runs have taken care.
    """

    wanted: int = 0
    ok: int = 0
    failed: int = 0
    audio_s: float = 0.0
    retries: int = 0
    withheld: int = 0  # recordings in a row, up to now, that the storage did not give
    claimed: int = 0  # recordings left to other live runs
    commits: int = 0
    commit_s: float = 0.0
    committed: int = 0  # recordings whose rows are in the lake
    written: CommitResult | None = None  # files, rows and bytes of all commits, and the version of the last
    last_commit_at: float | None = None  # seconds since 1970
    stage_s: Counter[str] = field(default_factory=Counter)  # of load, emit and decode, over all rows
    failures: Counter[str] = field(default_factory=Counter)
    uncovered: dict[str, float] = field(default_factory=dict)  # recording_id → seconds of speech without a word
    done_before: Mapping[str, int] = field(default_factory=dict)
    archives: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def count_archives(self, rows: Iterable[tuple[str | None, int | None]]) -> None:
        """Takes in ``(archive_id, archive_rows)`` of finished rows: an archive object was wanted as one, and is many."""
        for archive_id, archive_rows in rows:
            if archive_id is not None and archive_rows is not None and archive_id not in self.archives:
                self.archives.add(archive_id)
                if archive_rows > 1:  # 1: it could not be opened, or holds one file
                    self.wanted += archive_rows - 1 - self.done_before.get(archive_id, 0)

    def expect(self, wanted: int, done_before: Mapping[str, int]) -> None:
        """What the run is to do, once that is known."""
        self.wanted, self.done_before = wanted, done_before

    def add_report(self, row: Mapping[str, Any]) -> None:
        """Takes in what was finished: a row of the schema stages.REPORT."""
        self.count_archives(zip(row["archive_ids"], row["archive_rows"], strict=True))
        self.failed += len(row["failures"])
        self.ok += len(row["recording_ids"]) - len(row["failures"])
        self.audio_s += row["audio_s"]
        self.retries += row["retries"]
        self.stage_s.update(row["stage_s"] or {})
        reasons = [failure["reason"] for failure in row["failures"]]
        if len(reasons) < len(row["recording_ids"]) or not set(reasons) <= _STORAGE_REASONS:
            self.withheld = 0
        elif not any(row["attempts"]):  # what failed before and fails again says nothing of the others
            self.withheld += len(reasons)
        self.failures.update(f"{failure['reason']} ({failure['stage']})" for failure in row["failures"])
        self.uncovered |= {lost["recording_id"]: lost["seconds"] for lost in row["uncovered"]}

    def add_commit(self, rows: int, storage_retries: int, took_s: float) -> None:
        """Takes in that ``rows`` recordings were committed."""
        self.commits += 1
        self.commit_s += took_s
        self.committed += rows
        self.retries += storage_retries
        self.last_commit_at = time.time()

    def add_written(self, result: CommitResult) -> None:
        """Takes in what a commit added to the table."""
        before = self.written
        if before is not None:
            sums = {name: getattr(before, name) + getattr(result, name) for name in ("files", "rows", "size_bytes")}
            result = replace(result, **sums)
        self.written = result

    def put_into(self, claim: Lease) -> Lease:
        """The run's claim with the counts as they are now."""
        return replace(claim, wanted=self.wanted, ok=self.ok, failed=self.failed, audio_hours=self.audio_s / 3600)

    @property
    def done(self) -> int:
        return self.ok + self.failed

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def speed(self) -> float:
        """Audio seconds per wall second, start-up included."""
        return self.audio_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done at the pace so far; None before anything is done."""
        return self.wall_s / self.done * (self.wanted - self.done) if self.done else None

    def describe(self) -> str:
        left = "" if self.left_s is None else f", {format_duration(self.left_s)} left"
        failed = f", {self.failed} failed" if self.failed else ""
        hours = f"{self.audio_s / 3600:.2f} audio hours"
        return f"{self.done} of {self.wanted} done{failed}, {hours}, {self.speed:.0f}x real time{left}"

    def numbers(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "done": self.done,
            "wanted": self.wanted,
            "failed": self.failed,
            "failures": dict(self.failures),
            "audio_hours": round(self.audio_s / 3600, 4),
            "speed": round(self.speed, 2),
            "eta_s": None if self.left_s is None else round(self.left_s),
        }


class ProgressReport:
    """Shows a RunStats while it grows; use as a context manager and call ``update`` now and then."""

    def __init__(self, stats: RunStats, console: Console) -> None:
        self._stats, self._console = stats, console
        self._has_bar = console.is_terminal and not logs.is_json()
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("transcribing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), console=console
        )
        self._task = self._bar.add_task("transcribing", total=stats.wanted, status="starting workers")

    def __enter__(self) -> ProgressReport:
        if self._has_bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._has_bar:
            self._bar.stop()

    def warn(self, event: str, line: str, **fields: Any) -> None:
        """One line above the bar."""
        logs.tell(event, line, logs.shown_on(self._console), logs.WARNING, **fields)

    def update(self) -> None:
        if self._has_bar:
            self._bar.update(
                self._task, completed=self._stats.done, total=self._stats.wanted or None, status=self._stats.describe()
            )
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            logs.tell("progress", self._stats.describe(), logs.shown_on(self._console), **self._stats.numbers())


class StallMonitor:
    """Keeps the progress alive, and says what the run waits for when nothing was finished for ``stall_s``, and again each such
    time after. ``describe`` is asked with the seconds."""

    def __init__(self, progress: ProgressReport, stats: RunStats, stall_s: float, describe: Callable[[float], str]) -> None:
        self._progress, self._stats, self._stall_s, self._describe = progress, stats, stall_s, describe
        self._done, self._since = stats.done, time.monotonic()
        self._told = self._since

    def look(self) -> None:
        now = time.monotonic()
        if self._stats.done != self._done:
            self._done, self._since, self._told = self._stats.done, now, now
        elif now - self._told >= self._stall_s:
            self._told = now
            idle_s = now - self._since
            self._progress.warn("waiting", self._describe(idle_s), idle_s=round(idle_s), **self._stats.numbers())
        self._progress.update()


def format_duration(seconds: float) -> str:
    """``42 s``, ``7 min``, ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
