"""What a recheck found is read by runs and views: the newest record of a row counts, and the row that lost least is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dictalake.config.sections import Lake
from dictalake.lake.erase import Subjects, forget, sweep
from dictalake.lake.query import connect, find_names
from dictalake.lake.rechecks import Recheck, RecheckLog, find_lost
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.superseded import refresh_superseded
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

AT = datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def commit(lake: Lake, *rows: dict[str, Any]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))


def ask(lake: Lake, question: str) -> list[tuple[Any, ...]]:
    with connect(str(lake.uri), names=find_names(question)) as database:
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


@pytest.mark.parametrize("newer_s", [2.0000000000000013, 2.04])
def test_losses_that_are_the_same_tenth_of_a_second_are_equal(lake: Lake, newer_s: float) -> None:
    commit(lake, make_heard("a", 2.0, fingerprint="000000000000"), make_heard("a", newer_s, 1))
    assert ask(lake, "SELECT fingerprint FROM transcripts") == [(FINGERPRINT,)]


def make_redone(recording_id: str, then_s: float | None, now_s: float | None) -> list[dict[str, Any]]:
    """A row that knows of a loss of ``then_s``, and the next attempt, which knows of ``now_s``."""
    return [make_heard(recording_id, then_s), make_heard(recording_id, now_s, 1, attempt=1)]


def test_a_row_that_lost_sound_comes_behind_the_one_in_its_place_unless_that_lost_more_than_was_measured(lake: Lake) -> None:
    commit(
        lake,
        *make_redone("all is well, it said", 0.0, 3.0),
        *make_redone("it did not know", None, 3.0),
        *make_redone("damaged throughout", 0.0, 9.0),
        *make_redone("half noise", 0.0, 0.0),
        *make_redone("nobody can tell", None, None),
        *make_redone("a better copy, damaged too", 3.0, 2.5),
        *make_redone("the bytes rotted since", None, 3.0),
        *make_redone("a later recheck found it complete", 0.0, 3.0),
        make_heard("failed now", 0.0),
        make_failed_row("failed now", attempt=1),
    )
    log = RecheckLog(lake)
    log.append(
        [
            say("all is well, it said", "lost", missing_s=3.0),
            say("it did not know", "lost", missing_s=3.0),
            say("damaged throughout", "lost"),
            say("half noise", "lost", missing_s=0.0),
            say("nobody can tell", "lost"),
            say("a better copy, damaged too", "lost", missing_s=0.5),
            say("the bytes rotted since", "lost", missing_s=0.5),
            say("a later recheck found it complete", "lost", missing_s=3.0),
            say("failed now", "lost", missing_s=3.0),
        ]
    )
    log.append([say("a later recheck found it complete", "complete", 1, missing_s=0.0)])
    assert dict(ask(lake, "SELECT recording_id, attempt FROM transcripts")) == {
        "all is well, it said": 1,
        "it did not know": 1,
        "damaged throughout": 1,
        "half noise": 1,
        "nobody can tell": 1,
        "a better copy, damaged too": 1,
        "the bytes rotted since": 0,
        "a later recheck found it complete": 0,
        "failed now": 0,
    }


def test_a_row_that_lost_sound_comes_behind_one_of_another_model_that_a_recheck_found_complete(lake: Lake) -> None:
    other = "000000000000"
    for name, missing_s in (("short", 6.0), ("half noise", 0.0)):
        commit(lake, make_heard(name, None, fingerprint=other), make_heard(name, None, 1))
        RecheckLog(lake).append(
            [say(name, "complete", fingerprint=other, missing_s=0.0), say(name, "lost", missing_s=missing_s)]
        )
    assert ask(lake, "SELECT DISTINCT fingerprint FROM transcripts") == [(other,)]


def test_transcripts_of_a_month_open_no_file_of_another(lake: Lake) -> None:
    commit(lake, make_row("a"))
    [staged] = write_staged(make_transcripts([make_row("b", recorded_month="2026-04")]), lake)
    TranscriptTable(lake).commit([staged])
    RecheckLog(lake).append([say("a", "lost", missing_s=3.0)])
    refresh_superseded(lake)  # as a run does at its end
    Path(f"{lake.uri}/transcripts/{staged.path}").unlink()
    assert ask(lake, "SELECT recording_id FROM transcripts WHERE recorded_month = '2026-03'") == [("a",)]


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
