"""The data of a report, as plain numbers. The only text of a transcript is ``Recording.words``, left out by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Run:
    """A row of the view ``runs``. What the run did not record is None. ``settings``: changed keys and their values."""

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
    """Numbers of recordings. ``audio_s`` sums the recordings whose length is known. ``first_at`` and ``last_at`` are the times
    when the first and the last row were made. The other numbers cover only transcribed recordings."""

    ok: int
    failed: int
    audio_s: float
    speech_s: float
    uncovered_s: float
    uncovered: int
    incomplete: int
    lost_s: float
    confidence: float | None
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True)
class Slice:
    """The recordings that were finished in the ``width_s`` seconds from ``start``."""

    start: datetime
    width_s: float
    audio_s: float
    ok: int
    failed: int


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: the number of values from ``low`` to below ``high``; None means no upper end."""

    low: float
    high: float | None
    count: int


@dataclass(frozen=True)
class Failure:
    reason: str
    stage: str
    count: int
    retryable: bool


@dataclass(frozen=True)
class Stage:
    """The seconds that all workers spent in a stage, and the seconds for one recording."""

    name: str
    total_s: float
    median_s: float
    p95_s: float
    audio_s: float


@dataclass(frozen=True)
class Attempt:
    """``number`` counts from 0, the first try."""

    number: int
    ok: int
    failed: int


@dataclass(frozen=True)
class Recording:
    """A recording that a person should look at. ``words`` are the first words of its transcript, on request."""

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
class Incomplete:
    """A transcribed recording that lacks sound. ``lost_s`` is None where nobody can tell how much."""

    recording_id: str
    lost_s: float | None
    duration_s: float | None
    repairs: Sequence[str]


@dataclass(frozen=True)
class ProvenanceGroup:
    """``rows`` rows that the same model, decoder and code made."""

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
    """The rows of one run. If ``run`` is None, those of the whole lake, with its newest ``runs`` and ``more_runs`` others."""

    run: Run | None
    counts: Counts
    slices: Sequence[Slice]
    confidences: Sequence[Bar]
    durations: Sequence[Bar]
    failures: Sequence[Failure]
    stages: Sequence[Stage]
    attempts: Sequence[Attempt]
    slowest: Sequence[Recording]
    incomplete: Sequence[Incomplete]
    least_covered: Sequence[Recording]
    provenances: Sequence[ProvenanceGroup]
    runs: Sequence[Run] = ()
    more_runs: int = 0


@dataclass(frozen=True)
class Price:
    """What all machines of a run together cost for an hour."""

    per_hour: float
    currency: str


@dataclass(frozen=True)
class Report:
    """Everything on a page. ``later_runs`` came after the run that is shown and wrote no rows; the newest is first."""

    parts: Sequence[Part]
    made_at: datetime
    version: str
    price: Price | None = None
    with_text: bool = False
    later_runs: Sequence[Run] = ()

    @property
    def idle_runs(self) -> int:
        """How many of the later runs finished."""
        return sum(run.state == "finished" for run in self.later_runs)

    @property
    def broken_runs(self) -> list[Run]:
        """The later runs that failed, were stopped or killed, or are still at work."""
        return [run for run in self.later_runs if run.state != "finished"]
