"""What to check next, and what random corrections say of the lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.lake.corrections import CorrectionRecord, Corrections, Sampling
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.review.listing import BadFilter, read_filter, read_page
from dictalake.review.measure import calibrate, list_next, measure_lake
from dictalake.review.snapshot import Snapshot
from tests.lake_rows import make_failed_row, make_row

# recording id → confidence, length, speech without words, lost sound, all but the first in seconds
MEASURES = {
    "a": (0.99, 60.0, 0.0, 0.0),
    "b": (0.6, 600.0, 0.0, 0.0),
    "c": (0.6, 60.0, 0.0, 0.0),
    "d": (0.99, 60.0, 55.0, 0.0),
    "e": (0.9, 60.0, 0.0, 0.0),
    "f": (0.8, 60.0, 0.0, 0.0),
}


def make_measured_row(recording_id: str) -> dict[str, Any]:
    confidence, duration_s, uncovered_s, lost_s = MEASURES[recording_id]
    row = make_row(recording_id, confidence=confidence)
    row["quality"] |= {
        "duration_s": duration_s,
        "speech_s": duration_s * 0.9,
        "uncovered_speech_s": uncovered_s,
        "lost_s": lost_s,
    }
    return row


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    rows = [*map(make_measured_row, MEASURES), make_failed_row("z")]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    return lake


@pytest.fixture
def snapshot(lake: Lake) -> Snapshot:
    snapshot = Snapshot(lake)
    snapshot.refresh()
    return snapshot


def check(lake: Lake, recording_id: str, errors: int, sampling: Sampling, words: int = 100) -> None:
    confidence = MEASURES[recording_id][0]
    known = {"confidence": confidence, "words": words, "word_errors": errors, "sampling": sampling, "text": "x"}
    Corrections(lake).save(CorrectionRecord(recording_id=recording_id, event="corrected", who="Ann", **known))  # type: ignore[arg-type]


def list_ids(snapshot: Snapshot, sampling: Sampling = "worst", who: str = "Ann") -> str:
    snapshot.refresh()
    return "".join(one.recording_id for one in list_next(snapshot, who, sampling, 30.0))


def test_the_most_errors_for_the_time_come_first(snapshot: Snapshot) -> None:
    assert list_ids(snapshot) == "dbcfea"


def test_what_another_person_has_or_was_checked_or_left_is_not_offered(lake: Lake, snapshot: Snapshot) -> None:
    check(lake, "d", 1, "worst")
    run = Corrections(lake)
    assert run.claim("b", "Bob", "worst", run.save(make_claim("x")).at)
    run.leave("c", "Ann")
    assert list_ids(snapshot) == "fea"
    assert list_ids(snapshot, who="Bob") == "bcfea"


def make_claim(recording_id: str) -> CorrectionRecord:
    return CorrectionRecord(recording_id=recording_id, event="corrected", who="Ann", text="x")


def test_the_random_order_goes_round_the_strata(lake: Lake, snapshot: Snapshot) -> None:
    first = list_ids(snapshot, "random")
    assert {MEASURES[one][0] for one in first[:4]} == {0.99, 0.6, 0.9, 0.8}
    check(lake, first[0], 1, "random")
    assert MEASURES[list_ids(snapshot, "random")[0]][0] != MEASURES[first[0]][0]


def test_the_rate_of_the_lake_weighs_strata_by_speech_and_leaves_out_the_worst(lake: Lake, snapshot: Snapshot) -> None:
    assert measure_lake(snapshot).rate is None
    check(lake, "b", 40, "random")
    check(lake, "c", 60, "worst")
    check(lake, "a", 10, "random")
    snapshot.refresh()
    measured = measure_lake(snapshot)
    assert measured.rate is not None
    low, high = 660 / 900, 120 / 900  # shares of speech
    assert measured.rate.value == pytest.approx((low * 0.4 + high * 0.1) / (low + high))
    assert (measured.checked, measured.covered) == (2, pytest.approx(low + high))
    assert measured.of_all_checked is not None
    assert measured.of_all_checked.value == pytest.approx(110 / 300)


def test_the_rate_has_an_interval_and_a_command_says_it(
    lake: Lake, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    check(lake, "b", 40, "random")
    check(lake, "c", 10, "random")
    snapshot.refresh()
    rate = measure_lake(snapshot).rate
    assert rate is not None
    assert (rate.low, rate.value, rate.high) == (0.1, 0.25, 0.4)
    assert run_command("corrections", ["wer", str(lake.uri)]) == 0
    assert "word error rate 25.0 % (10.0 – 40.0)" in capsys.readouterr().out


def test_confidence_is_calibrated_once_there_are_enough_corrections() -> None:
    known = [
        CorrectionRecord(
            recording_id=str(number), event="corrected", who="", text="x", confidence=number / 20, words=100, word_errors=50
        )
        for number in range(1, 20)
    ]
    assert calibrate(known)[0] == pytest.approx(0.9975)
    assert set(calibrate([*known, known[0]])) == {0.5}


def test_filters_leave_what_they_say_and_pages_leave_nothing_out(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_page(snapshot, [read_filter("status", "eq", "failed")], "confidence")
    assert [row["recording_id"] for row in found.rows] == ["z"]
    assert read_page(snapshot, [read_filter("confidence", "none", "")], "confidence").total == 1
    assert read_page(snapshot, [read_filter("metadata", "has", "RADIO")], "confidence").total == 6
    with pytest.raises(BadFilter, match="give a number"):
        read_page(snapshot, [read_filter("confidence", "lt", "x")], "confidence")
    monkeypatch.setattr("dictalake.review.listing.PAGE_ROWS", 2)
    for sort in ("confidence", "longest", "newest", "lost"):
        seen, after = [], ""
        while True:
            page = read_page(snapshot, [], sort, after)
            seen += [row["recording_id"] for row in page.rows]
            if page.after is None:
                break
            after = page.after
        assert sorted(seen) == sorted([*MEASURES, "z"])


def test_pages_leave_out_no_month_of_a_recording(lake: Lake, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [make_row("twice", recorded_month=f"2026-0{number}", attempt=number) for number in (3, 4, 5)]
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))
    snapshot.refresh()
    monkeypatch.setattr("dictalake.review.listing.PAGE_ROWS", 1)
    seen, page = 0, read_page(snapshot, [], "confidence")
    while page.after is not None:
        seen, page = seen + len(page.rows), read_page(snapshot, [], "confidence", page.after)
    assert (seen + len(page.rows), page.total) == (10, 10)


def test_a_commit_and_a_compaction_are_seen_by_the_next_request(lake: Lake, snapshot: Snapshot) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("new")]), lake))
    snapshot.refresh()
    assert read_page(snapshot, [], "confidence").total == 8
    assert run_command("compact", ["--lake.uri", str(lake.uri)]) == 0
    snapshot.refresh()
    assert read_page(snapshot, [], "confidence").total == 8
    assert [row["text"] for row in snapshot.read_rows("new")] == ["No acute fracture."]
