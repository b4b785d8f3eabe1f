"""What a run shows while it works."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from dictalake.logs import console_handler
from dictalake.observers import progress
from dictalake.observers.base import RunEnd
from dictalake.observers.progress import ProgressReport, StallMonitor
from dictalake.observers.stats import FailureKind, RunStats, format_duration


def make_stats(*, done: int = 100, wanted: int = 200, recent_s: float = 10_000) -> RunStats:
    """All that is done was done in the last ``recent_s``: so long ago that the seconds of a slow test do not show."""
    now = time.monotonic()
    stats = RunStats(started=now - 10_000)
    stats.expect(wanted, {})
    stats.note_pace(now - recent_s)
    stats.ok, stats.failed, stats.audio_s = done - 3, 3, 3_600_000.0
    stats.note_pace(now)
    return stats


def test_a_line_says_how_much_is_done_how_fast_and_how_much_is_left() -> None:
    expected = "100 of 200 recordings done, 3 failed, 1000.00 audio hours, 360x real time, 2 h 46 min left"
    assert make_stats().describe() == expected


def test_before_anything_is_done_nothing_is_promised() -> None:
    stats = RunStats(wanted=4)
    assert stats.left_s is None
    assert stats.describe() == "0 of 4 recordings done, 0.00 audio hours, 0x real time"


def test_nothing_is_left_at_the_end() -> None:
    stats = make_stats(done=200)
    assert stats.left_s == 0
    assert stats.describe().endswith(", 0 s left")


def test_the_time_left_is_of_the_last_minutes_and_not_of_a_slow_start() -> None:
    """9,000 s for the first hundred, then one a second."""
    now = time.monotonic()
    stats = RunStats(started=now - 10_000)
    stats.expect(1_400, {})
    stats.ok = 100
    stats.note_pace(now - 1_000)
    for second in range(1_000, -1, -1):
        stats.ok = 100 + 1_000 - second
        stats.note_pace(now - second)
    assert stats.left_s == pytest.approx(300, rel=0.1)


@pytest.mark.parametrize(
    ("done", "recent_s", "is_listed"),
    [
        (100, 5.0, True),  # too short a look
        (3, 10_000, True),  # too small a share
        (100, 10_000, False),
    ],
)
def test_the_time_left_is_not_guessed_from_too_little(done: int, recent_s: float, is_listed: bool) -> None:
    stats = make_stats(done=done, wanted=1000, recent_s=recent_s)
    stats.is_listed = is_listed
    assert stats.left_s is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (89, "89 s"), (90, "2 min"), (3000, "50 min"), (5400, "1 h 30 min"), (100_000, "27 h 46 min")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_without_a_terminal_there_is_a_plain_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    stats, console = make_stats(), Console(file=output, width=200)
    report = ProgressReport(stats, console)
    with console_handler(console):
        report.step_started("starting Ray")
        report.time_passed()
        assert output.getvalue() == ""  # not a minute has passed
        monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
        report.time_passed()
        report.run_ended(RunEnd())
    assert output.getvalue() == stats.describe() + "\n"


def test_a_terminal_shows_the_step_at_once_and_then_a_bar_with_its_stages_in_80_columns() -> None:
    output = io.StringIO()
    stats = RunStats()
    report = ProgressReport(stats, Console(file=output, force_terminal=True, width=80))
    report.step_started("starting Ray")
    report.time_passed()
    assert "starting Ray …" in output.getvalue()
    stats.expect(2_000_000, {})
    stats.ok, stats.failed, stats.in_work = 1_234_567, 50_000, {"load": 32, "hear": 100, "finish": 2}
    report.block_finished()
    report.time_passed()
    report.run_ended(RunEnd())
    last = output.getvalue().rpartition("transcribing")[2]
    assert "1284567 of 2000000 recordings 50000 failed" in " ".join(last.split())
    assert "in work: load 32, recognize 100, finish 2" in output.getvalue()


def test_an_archive_object_is_wanted_as_many_as_the_files_it_turns_out_to_hold() -> None:
    stats = RunStats(wanted=3, done_before={"half": 4, "unreadable": 4})
    stats.count_archives([(None, None), ("half", 10), ("half", 10), ("unreadable", 1), ("single", 1)])
    assert stats.wanted == 3 + (10 - 1 - 4)
    assert stats.archives == {"half", "unreadable", "single"}


def test_recordings_that_the_storage_withholds_are_counted_in_a_row() -> None:
    stats = RunStats(wanted=100)

    def report(*reasons: str | None, attempt: int = 0) -> dict[str, Any]:
        failures = [{"recording_id": "x", "stage": "load", "reason": reason} for reason in reasons if reason]
        ids = [str(number) for number in range(len(reasons))]
        attempts = [attempt] * len(ids)
        nothing = {"archive_ids": [None] * len(ids), "archive_rows": [None] * len(ids), "stage_s": None}
        nothing |= {"uncovered": [], "lost": []}
        return {"recording_ids": ids, "attempts": attempts, "failures": failures, "audio_s": 0.0, "retries": 2, **nothing}

    for _ in range(2):
        stats.add_report(report("fetch_failed", "credentials_expired"))
    assert (stats.consecutive_storage_failures, stats.failed, stats.retries) == (4, 4, 4)
    stats.add_report(report("fetch_failed", attempt=1))
    assert stats.consecutive_storage_failures == 4
    stats.add_report(report("fetch_failed", None))
    assert stats.consecutive_storage_failures == 0
    stats.add_report(report("not_audio"))
    assert (stats.consecutive_storage_failures, stats.ok, stats.failed) == (0, 1, 7)
    assert stats.failures[FailureKind("fetch_failed", "load")] == 4
    assert stats.named_failures["not_audio (load)"] == 1


def test_a_run_that_stands_still_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    output, now = io.StringIO(), [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stats = RunStats(wanted=2)
    watch = StallMonitor(stats, 50, lambda idle_s: f"waiting for a GPU since {idle_s:.0f} s")
    with console_handler(Console(file=output, width=200)):
        watch.time_passed()
        assert output.getvalue() == ""
        now[0] += 60
        watch.time_passed()
        watch.time_passed()
        assert output.getvalue() == "waiting for a GPU since 60 s\n"
        stats.ok += 1
        watch.time_passed()
        now[0] += 30
        watch.time_passed()
    assert output.getvalue().count("waiting for a GPU") == 1


def test_while_the_listing_goes_on_the_progress_says_at_least_and_promises_no_end() -> None:
    stats = make_stats()
    stats.expect(200, {}, is_growing=True)
    assert stats.describe().startswith("100 of at least 200 recordings done")
    assert (stats.left_s, stats.numbers()["at_least"]) == (None, True)
    stats.expect_more(50, is_growing=False)
    assert stats.describe().startswith("100 of 250 recordings done")
    assert stats.left_s is not None
    assert "at_least" not in stats.numbers()
