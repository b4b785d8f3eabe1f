"""What a recheck found is read by runs and views: the newest record of a row counts, and the row that lost least is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dictalake.config.sections import Lake
from dictalake.lake.erase import Subjects, forget, sweep
from dictalake.lake.query import connect
from dictalake.lake.rechecks import Recheck, RecheckLog, find_lost
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

AT = datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def commit(lake: Lake, *rows: dict[str, Any]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))


def ask(lake: Lake, question: str) -> list[tuple[Any, ...]]:
    with connect(str(lake.uri)) as database:
        return database.sql(question).fetchall()


def say(recording_id: str, verdict: Any, hours: int = 0, **changes: Any) -> Recheck:
    given = {"fingerprint": FINGERPRINT, "attempt": 0, "loader": 2, **changes}
    return Recheck(recording_id=recording_id, at=AT + timedelta(hours=hours), verdict=verdict, **given)


def make_heard(recording_id: str, lost_s: float | None, hours: int = 0, **changes: Any) -> dict[str, Any]:
    row = make_row(recording_id, **changes)
    row["quality"] = {**row["quality"], "lost_s": lost_s, "repairs": None if lost_s is None else ["hole"]}
    row["provenance"] = {**row["provenance"], "transcribed_at": AT + timedelta(hours=hours)}
    return row


def test_a_lake_in_which_nothing_was_rechecked_has_no_lost_rows(lake: Lake) -> None:
    commit(lake, make_row("a"))
    assert find_lost(lake, FINGERPRINT).num_rows == 0
    assert ask(lake, "SELECT count(*) FROM rechecks") == [(0,)]


def test_the_newest_record_of_a_row_counts(lake: Lake) -> None:
    log = RecheckLog(lake)
    log.append([say("a", "unread"), say("b", "lost"), say("c", "lost", fingerprint="000000000000"), say("d", "complete")])
    log.append([say("a", "lost", 1), say("b", "complete", 1), say("d", "lost", 1, attempt=1)])
    assert sorted(map(tuple, (row.values() for row in find_lost(lake, FINGERPRINT).to_pylist()))) == [("a", 0), ("d", 1)]
    log.append([say("a", "complete", loader=3)])  # of a newer loader, whatever the clocks say
    assert find_lost(lake, FINGERPRINT)["recording_id"].to_pylist() == ["d"]


def test_of_the_rows_of_a_recording_the_one_that_lost_least_is_shown(lake: Lake) -> None:
    other = "000000000000"
    commit(
        lake,
        make_heard("complete before", 0.0),
        make_heard("complete before", 3.0, 1, attempt=1),
        make_heard("complete now", 3.0),
        make_heard("complete now", 0.0, 1, attempt=1),
        make_heard("unknown before", None),
        make_heard("unknown before", 3.0, 1, attempt=1),
        make_heard("the same", 3.0, 2),
        make_heard("the same", 3.0, 1, fingerprint=other),
        make_heard("failed now", 3.0),
        make_failed_row("failed now", attempt=1),
    )
    assert ask(lake, "SELECT recording_id, attempt, fingerprint FROM transcripts ORDER BY ALL") == [
        ("complete before", 0, FINGERPRINT),
        ("complete now", 1, FINGERPRINT),
        ("failed now", 0, FINGERPRINT),
        ("the same", 0, FINGERPRINT),
        ("unknown before", 1, FINGERPRINT),
    ]
    assert ask(lake, "SELECT recording_id FROM failures") == [("failed now",)]


def test_incomplete_lists_what_lost_sound_the_worst_first(lake: Lake) -> None:
    commit(
        lake,
        make_heard("hole", 0.5),
        make_heard("whole", 0.0),
        make_heard("cut", 9.0),
        make_heard("old", None),
        make_heard("damaged", None),
        make_heard("checked", None),
    )
    found = [
        say("old", "lost", missing_s=6.0, duration_s=8.0, repairs=("header_short",)),
        say("damaged", "lost", reason="corrupt_audio"),
        say("checked", "complete", missing_s=0.0, duration_s=2.0, lost_s=0.0, repairs=()),
    ]
    RecheckLog(lake).append(found)
    columns = "recording_id, lost_s, share, repairs, duration_s, found_by"
    assert ask(lake, f"SELECT {columns} FROM incomplete") == [
        ("damaged", None, None, None, 2.0, "recheck"),
        ("cut", 9.0, 1.0, ["hole"], 2.0, "row"),
        ("old", 6.0, 0.75, ["header_short"], 8.0, "recheck"),
        ("hole", 0.5, 0.25, ["hole"], 2.0, "row"),
    ]
    assert ask(lake, "SELECT DISTINCT uri FROM incomplete WHERE recording_id = 'cut'") == [("gs://archive/cut.wav",)]
    commit(lake, make_heard("old", 0.0, 1, attempt=1))
    assert ("old",) not in ask(lake, "SELECT recording_id FROM incomplete"), "another attempt has all of it"


def test_erasure_takes_the_records_of_what_it_erases_and_no_others(lake: Lake) -> None:
    RunLog(lake)
    commit(lake, make_row("a"), make_row("b"))
    log = RecheckLog(lake)
    log.append([say("a", "lost"), say("a", "complete", 1), say("b", "lost")])
    assert forget(lake, Subjects(recordings=("a",)), dry_run=True).rechecks == 0
    assert forget(lake, Subjects(recordings=("a",))).rechecks == 2
    assert ask(lake, "SELECT recording_id FROM recheck_records") == [("b",)]
    log.append([say("a", "lost")])  # by a recheck that was at work meanwhile
    assert sweep(lake).rechecks == 1
    assert ask(lake, "SELECT recording_id FROM recheck_records") == [("b",)]
