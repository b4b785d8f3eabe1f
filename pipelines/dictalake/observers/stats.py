"""What a run has done so far: the one place that counts. Progress, metrics, lineage, lease and summary read it.

Two words are used everywhere. An *object* is what the archive lists: a file, or an object in a bucket. A *recording* is what
gets a row in the lake. An object with sound in it is one recording; an archive object (ZIP, TAR) is as many as it has members.
How many that are is known once it is opened, so ``wanted`` grows while a run unpacks.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from dictalake.errors import AccessDenied, CredentialsExpired, EntryFailed, FetchFailed, IdTaken
from dictalake.lake.claims import Lease
from dictalake.lake.table import CommitResult

_STORAGE_REASONS = {FetchFailed.reason, AccessDenied.reason, CredentialsExpired.reason, EntryFailed.reason}
_RECENT_S = 300.0  # the rate of the last minutes says when the run is over: not that of the start, nor that of another folder
_LEAST_S, _LEAST_SHARE = 10.0, 0.02  # before that a guess is worth nothing


class FailureKind(NamedTuple):
    """Why recordings failed, and in which stage."""

    reason: str
    stage: str

    def __str__(self) -> str:
        """As people and the run records have it."""
        return f"{self.reason} ({self.stage})"


@dataclass
class RunStats:
    """The counts of recordings. ``done_before`` says how many rows of an archive object earlier runs have written."""

    wanted: int = 0
    ok: int = 0
    failed: int = 0
    audio_s: float = 0.0
    retries: int = 0
    consecutive_storage_failures: int = 0  # recordings in a row, up to now, that the storage did not give
    claimed: int = 0  # objects left to other live runs
    commits: int = 0
    commit_s: float = 0.0
    committed: int = 0  # recordings whose rows are in the lake
    written: CommitResult | None = None  # files, rows and bytes of all commits, and the version of the last
    last_commit_at: float | None = None  # seconds since 1970
    stage_s: Counter[str] = field(default_factory=Counter)  # of load, emit and decode, over all rows
    failures: Counter[FailureKind] = field(default_factory=Counter)
    uncovered: dict[str, float] = field(default_factory=dict)  # recording_id → seconds of speech without a word
    lost: dict[str, float] = field(default_factory=dict)  # recording_id → seconds of sound that could not be decoded
    judged: int = 0  # recordings with enough speech to tell a conversation from a dictation
    conversations: int = 0  # those that look like one
    in_work: dict[str, int] = field(default_factory=dict)  # stage → recordings that its workers have in hand
    done_before: Mapping[str, int] = field(default_factory=dict)
    archives: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)
    is_listed: bool = False  # whether ``wanted`` is known
    is_growing: bool = False  # whether the archive is listed and planned beside the work: ``wanted`` is what is known so far
    objects: dict[str, int] = field(default_factory=dict)  # then what is known of the archive's objects, for the run's record
    _recent: deque[tuple[float, int]] = field(default_factory=deque, repr=False)  # (when, how many were done) of late

    def count_archives(self, rows: Iterable[tuple[str | None, int | None]]) -> None:
        """Takes in ``(archive_id, archive_rows)`` of finished rows: an archive object was wanted as one, and is many."""
        for archive_id, archive_rows in rows:
            if archive_id is not None and archive_rows is not None and archive_id not in self.archives:
                self.archives.add(archive_id)
                if archive_rows > 1:  # 1: it could not be opened, or holds one file
                    self.wanted += archive_rows - 1 - self.done_before.get(archive_id, 0)

    def expect(self, wanted: int, done_before: Mapping[str, int], *, is_growing: bool = False) -> None:
        """What the run is to do, once that is known; ``is_growing``: at least."""
        self.wanted, self.done_before = wanted, done_before
        self.is_listed, self.is_growing = not is_growing, is_growing

    def expect_more(self, more: int, *, is_growing: bool) -> None:
        """What the listing has brought since."""
        self.wanted += more
        self.is_listed, self.is_growing = not is_growing, is_growing

    def add_report(self, row: Mapping[str, Any]) -> None:
        """Takes in what was finished: a row of the schema assemble.REPORT."""
        self.count_archives(zip(row["archive_ids"], row["archive_rows"], strict=True))
        self.failed += len(row["failures"])
        self.ok += len(row["recording_ids"]) - len(row["failures"])
        self.audio_s += row["audio_s"]
        self.retries += row["retries"]
        self.stage_s.update(row["stage_s"] or {})
        reasons = [failure["reason"] for failure in row["failures"]]
        if len(reasons) < len(row["recording_ids"]) or not set(reasons) <= _STORAGE_REASONS:
            self.consecutive_storage_failures = 0
        elif not any(row["attempts"]):  # what failed before and fails again says nothing of the others
            self.consecutive_storage_failures += len(reasons)
        self.failures.update(FailureKind(failure["reason"], failure["stage"]) for failure in row["failures"])
        self.uncovered |= {one["recording_id"]: one["seconds"] for one in row["uncovered"]}
        self.lost |= {one["recording_id"]: one["seconds"] for one in row["lost"]}
        self.judged += row.get("judged") or 0
        self.conversations += row.get("conversations") or 0
        self.note_pace(time.monotonic())

    def note_pace(self, now: float) -> None:
        """Remembers how many recordings are done ``now``, and forgets what was longer ago than a few minutes."""
        self._recent.append((now, self.done))
        while len(self._recent) > 2 and now - self._recent[1][0] >= _RECENT_S:
            self._recent.popleft()

    def add_commit(self, rows: int, storage_retries: int, took_s: float) -> None:
        """Takes in that ``rows`` recordings were committed."""
        self.commits += 1
        self.commit_s += took_s
        self.committed += rows
        self.retries += storage_retries
        self.last_commit_at = time.time()

    def add_written(self, result: CommitResult) -> None:
        """Takes in what a commit added to the table. Rows whose id was taken were reported as good ones."""
        if result.id_taken:
            self.ok, self.failed = self.ok - result.id_taken, self.failed + result.id_taken
            self.failures[FailureKind(IdTaken.reason, IdTaken.stage)] += result.id_taken
        before = self.written
        if before is not None:
            sums = {name: getattr(before, name) + getattr(result, name) for name in ("files", "rows", "size_bytes")}
            result = replace(result, **sums)
        self.written = result

    def put_into(self, claim: Lease) -> Lease:
        """The run's lease with the counts as they are now."""
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
        """Seconds until all is done at the pace of the last minutes; None as long as nobody can tell."""
        if not self.is_listed or len(self._recent) < 2:
            return None
        (since, before), now = self._recent[0], time.monotonic()
        done = self.done - before
        if done <= 0 or now - since < _LEAST_S or self.done < _LEAST_SHARE * self.wanted:
            return None
        return (now - since) / done * (self.wanted - self.done)

    @property
    def shown_wanted(self) -> str:
        """``at least 300`` while the listing goes on."""
        return f"at least {self.wanted}" if self.is_growing else str(self.wanted)

    @property
    def named_failures(self) -> dict[str, int]:
        """``failures`` as run records and JSON lines have them."""
        return {str(kind): count for kind, count in self.failures.items()}

    def describe(self) -> str:
        """One line for people."""
        left = "" if self.left_s is None else f", {format_duration(self.left_s)} left"
        failed = f", {self.failed} failed" if self.failed else ""
        hours = f"{self.audio_s / 3600:.2f} audio hours"
        return f"{self.done} of {self.shown_wanted} recordings done{failed}, {hours}, {self.speed:.0f}x real time{left}"

    def numbers(self) -> dict[str, Any]:
        """The same for machines."""
        left_s = self.left_s
        return {
            "done": self.done,
            "wanted": self.wanted,
            **({"at_least": True} if self.is_growing else {}),
            "failed": self.failed,
            "failures": self.named_failures,
            "audio_hours": round(self.audio_s / 3600, 4),
            "speed": round(self.speed, 2),
            "eta_s": None if left_s is None else round(left_s),
        }


def format_duration(seconds: float) -> str:
    """``42 s``, ``7 min``, ``3 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
