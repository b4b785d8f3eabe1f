"""What a run tells while it works."""

from __future__ import annotations

import io
import time
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from dictalake.observers import progress
from dictalake.observers.progress import ProgressReport, RunStats, StallMonitor, format_duration


def make_tally() -> RunStats:
    """Half of the work in the last 10,000 s: so long ago that the seconds of a slow test do not show."""
    stats = RunStats(wanted=200, started=time.monotonic() - 10_000)
    stats.ok, stats.failed, stats.audio_s = 97, 3, 3_600_000.0
    return stats


def test_a_tally_says_how_much_is_done_how_fast_and_how_much_is_left() -> None:
    assert make_tally().describe() == "100 of 200 done, 3 failed, 1000.00 audio hours, 360x real time, 2 h 46 min left"


def test_before_anything_is_done_nothing_is_promised() -> None:
    stats = RunStats(wanted=4)
    assert stats.left_s is None
    assert stats.describe() == "0 of 4 done, 0.00 audio hours, 0x real time"


def test_nothing_is_left_at_the_end() -> None:
    stats = make_tally()
    stats.ok = 197
    assert stats.left_s == 0
    assert stats.describe().endswith(", 0 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (89, "89 s"), (90, "2 min"), (3000, "50 min"), (5400, "1 h 30 min"), (100_000, "27 h 46 min")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_without_a_terminal_there_is_a_plain_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    stats = make_tally()
    with ProgressReport(stats, Console(file=output, width=200)) as report:
        report.update()
        assert output.getvalue() == ""  # not a minute has passed
        monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
        report.update()
    assert output.getvalue() == stats.describe() + "\n"


def test_on_a_terminal_there_is_a_bar() -> None:
    output = io.StringIO()
    stats = RunStats(wanted=200)
    with ProgressReport(stats, Console(file=output, force_terminal=True, width=160)) as report:
        stats.ok, stats.failures = 50, Counter({"not_audio (load)": 1})
        report.update()
    assert "transcribing" in output.getvalue()
    assert "50/200" in output.getvalue()


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
        nothing = {"archive_ids": [None] * len(ids), "archive_rows": [None] * len(ids), "uncovered": [], "stage_s": None}
        return {"recording_ids": ids, "attempts": attempts, "failures": failures, "audio_s": 0.0, "retries": 2, **nothing}

    for _ in range(2):
        stats.add_report(report("fetch_failed", "credentials_expired"))
    assert (stats.withheld, stats.failed, stats.retries) == (4, 4, 4)
    stats.add_report(report("fetch_failed", attempt=1))
    assert stats.withheld == 4
    stats.add_report(report("fetch_failed", None))
    assert stats.withheld == 0
    stats.add_report(report("not_audio"))
    assert (stats.withheld, stats.ok, stats.failed) == (0, 1, 7)


def test_a_run_that_stands_still_says_what_it_waits_for() -> None:
    output = io.StringIO()
    stats = RunStats(wanted=2)
    console = Console(file=output, width=200)
    watch = StallMonitor(ProgressReport(stats, console), stats, 0.05, lambda idle_s: f"waiting for a GPU since {idle_s:.1f} s")
    watch.look()
    assert output.getvalue() == ""
    time.sleep(0.06)
    watch.look()
    watch.look()
    assert output.getvalue().count("waiting for a GPU") == 1
    stats.ok += 1
    watch.look()
    time.sleep(0.03)
    watch.look()
    assert output.getvalue().count("waiting for a GPU") == 1
