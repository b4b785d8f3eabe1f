"""What a report shows, as plain numbers. The only text of a transcript is ``Recording.words``, left out unless asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Run:
    """A row of the view ``runs``; None is what the run did not come to tell. ``settings``: changed keys and their values."""

    run_id: str
    state: str
    job: str | None
    host: str | None
    started_at: datetime | None
    ended_at: datetime | None
    fingerprint: str | None
    wanted: int | None
    skipped: int | None
    claimed: int | None
    retried: int | None
    ok: int | None
    failed: int | None
    audio_hours: float | None
    wall_s: float | None
    speed: float | None
    cpus: float | None
    gpus: float | None
    storage_retries: int | None
    settings: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Counts:
    """Of recordings. ``audio_s`` is of all that could be measured, ``first_at`` and ``last_at`` are when rows were made, all
    else is of what was transcribed."""

    ok: int
    failed: int
    audio_s: float
    speech_s: float
    uncovered_s: float
    uncovered: int
    confidence: float | None
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True)
class Slice:
    """What was finished in ``width_s`` seconds from ``start``."""

    start: datetime
    width_s: float
    audio_s: float
    ok: int
    failed: int


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: how many are from ``low`` to below ``high``; None has no end."""

    low: float
    high: float | None
    count: int


@dataclass(frozen=True)
class Failure:
    reason: str
    stage: str
    count: int
    may_pass: bool


@dataclass(frozen=True)
class Stage:
    """Seconds of all workers of a stage, and of a recording."""

    name: str
    total_s: float
    median_s: float
    p95_s: float
    audio_s: float


@dataclass(frozen=True)
class Attempt:
    """``number`` from 0: 0 is the first try."""

    number: int
    ok: int
    failed: int


@dataclass(frozen=True)
class Recording:
    """A recording worth a look; ``words`` are the first of its transcript, where they were asked for."""

    recording_id: str
    duration_s: float | None
    speech_s: float | None
    uncovered_s: float | None
    confidence: float | None
    load_s: float
    emit_s: float
    decode_s: float
    words: str | None = None

    @property
    def total_s(self) -> float:
        return self.load_s + self.emit_s + self.decode_s


@dataclass(frozen=True)
class Maker:
    """What made ``rows`` rows."""

    fingerprint: str
    rows: int
    model_id: str | None
    model_revision: str | None
    model_sha256: str | None
    lm_sha256: str | None
    decoder: str | None
    pipeline_version: str | None
    git_commit: str | None
    device: str | None
    versions: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Part:
    """The rows of one run, or where ``run`` is None of the whole lake, with its newest ``runs`` and ``more_runs`` others."""

    run: Run | None
    counts: Counts
    slices: Sequence[Slice]
    confidences: Sequence[Bar]
    durations: Sequence[Bar]
    failures: Sequence[Failure]
    stages: Sequence[Stage]
    attempts: Sequence[Attempt]
    slowest: Sequence[Recording]
    least_covered: Sequence[Recording]
    makers: Sequence[Maker]
    runs: Sequence[Run] = ()
    more_runs: int = 0


@dataclass(frozen=True)
class Price:
    """What an hour of the machines of a run costs, all together."""

    per_hour: float
    currency: str


@dataclass(frozen=True)
class Report:
    """All that is on a page. ``later_runs``, newest first, wrote no rows after the run that is shown."""

    parts: Sequence[Part]
    made_at: datetime
    version: str
    price: Price | None = None
    with_text: bool = False
    later_runs: Sequence[Run] = ()

    @property
    def idle_runs(self) -> int:
        """How many of the later runs came to their end."""
        return sum(run.state == "finished" for run in self.later_runs)

    @property
    def broken_runs(self) -> list[Run]:
        """Those that failed, were killed or are at work."""
        return [run for run in self.later_runs if run.state != "finished"]
