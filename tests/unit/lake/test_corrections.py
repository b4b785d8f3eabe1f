"""Corrections: who saves second is refused, an undo brings back what counted, and all upkeep of a lake leaves them alone."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.lake.corrections import AccessLog, Conflict, CorrectionRecord, Corrections
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.fingerprints import promote
from dictalake.lake.maintenance import compact
from dictalake.lake.query import connect
from dictalake.lake.search import TextIndex
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, make_rows

OTHER = "7be1d0a94c52"
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    for fingerprint in (FINGERPRINT, OTHER):
        TranscriptTable(lake).commit(write_staged(make_rows("ab", fingerprint=fingerprint), lake))
    promote(lake, FINGERPRINT)
    return lake


def make(text: str, recording_id: str = "a", who: str = "Ann", replaces: str | None = None) -> CorrectionRecord:
    return CorrectionRecord(recording_id=recording_id, event="corrected", who=who, text=text, replaces=replaces)


def read_shown(lake: Lake) -> dict[str, tuple[str, str]]:
    with connect(str(lake.uri), names=("transcripts",)) as database:
        rows = database.sql("SELECT recording_id, text_corrected, corrected_by FROM transcripts").fetchall()
    return {recording_id: (text, who) for recording_id, text, who in rows}


def test_a_correction_shows_under_every_fingerprint_and_is_found_by_its_words(lake: Lake, tmp_path: Path) -> None:
    index = TextIndex(lake, tmp_path / "index")
    index.refresh()
    Corrections(lake).save(make("A zebra."))
    assert read_shown(lake) == {"a": ("A zebra.", "Ann"), "b": (None, None)}
    index.refresh()
    assert [hit.recording_id for hit in index.search("zebra", 9)] == ["a"]
    assert [hit.recording_id for hit in index.search("fracture", 9)] == ["b"]
    promote(lake, OTHER)
    assert read_shown(lake)["a"] == ("A zebra.", "Ann")


def test_of_two_servers_the_one_that_saves_second_is_told_what_counts(lake: Lake) -> None:
    first, second = Corrections(lake), Corrections(lake)
    saved = first.save(make("One."))
    with pytest.raises(Conflict) as refused:
        second.save(make("Two.", who="Bob"))
    assert refused.value.record == saved
    second.save(make("Two.", who="Bob", replaces=saved.correction_id))
    first.refresh()
    assert [one.text for one in first.list_of("a")] == ["One.", "Two."]
    assert read_shown(lake)["a"] == ("Two.", "Bob")


def test_undo_brings_back_what_counted_and_undone_again_what_was_undone(lake: Lake) -> None:
    corrections = Corrections(lake)
    one = corrections.save(make("One."))
    two = corrections.save(make("Two.", replaces=one.correction_id))
    undone = corrections.undo("a", two.correction_id, "Bob")
    assert read_shown(lake)["a"] == ("One.", "Bob")
    with pytest.raises(Conflict):
        corrections.undo("a", two.correction_id, "Bob")
    again = corrections.undo("a", undone.correction_id, "Bob")
    assert read_shown(lake)["a"][0] == "Two."
    corrections.undo("a", again.correction_id, "Bob")
    first = corrections.save(make("Only.", "b"))
    corrections.undo("b", first.correction_id, "Ann")
    assert read_shown(lake) == {"a": ("One.", "Bob"), "b": (None, None)}


def test_a_clock_that_is_behind_does_not_hide_a_later_correction(lake: Lake) -> None:
    one = Corrections(lake).save(make("One."))
    late = make("Two.", replaces=one.correction_id)
    Corrections(lake).save(replace(late, at=one.at - timedelta(hours=1)))
    assert read_shown(lake)["a"][0] == "Two."


def test_two_people_do_not_get_the_same_recording(lake: Lake) -> None:
    first, second = Corrections(lake), Corrections(lake)
    assert first.claim("a", "Ann", "worst", LONG_AGO)
    assert first.claim("a", "Ann", "worst", LONG_AGO)
    assert not second.claim("a", "Bob", "worst", LONG_AGO)
    assert second.claim("a", "Bob", "worst", datetime.now(UTC) + timedelta(hours=1))  # Ann's has run out
    first.leave("b", "Ann")
    assert first.find_claim("b", LONG_AGO) is None
    second.save(make("One."))
    assert not first.claim("a", "Ann", "worst", datetime.now(UTC) + timedelta(hours=1))


def test_what_another_person_leaves_stays_with_its_owner(lake: Lake) -> None:
    corrections = Corrections(lake)
    assert corrections.claim("a", "Ann", "worst", LONG_AGO)
    corrections.leave("a", "Bob")
    assert corrections.find_claim("a", LONG_AGO) == "Ann"
    corrections.leave("a", "Ann")
    assert corrections.find_claim("a", LONG_AGO) is None


class _Watched(Corrections):
    """Tells what other threads would see, and whether they could change it, while a correction is checked."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_of":
            vars(self).setdefault("seen", []).append(dict(value))
        super().__setattr__(name, value)

    def _require_unchanged(self, record: CorrectionRecord) -> None:
        with ThreadPoolExecutor(1) as other:
            self.is_open = other.submit(self._lock.acquire, blocking=False).result()
        super()._require_unchanged(record)


def test_a_refresh_of_another_thread_never_hides_a_correction(lake: Lake) -> None:
    saved = Corrections(lake).save(make("One."))
    corrections = _Watched(lake)
    corrections.save(make("Two.", replaces=saved.correction_id))
    assert not corrections.is_open
    assert [len(one.get("a", ())) for one in vars(corrections)["seen"]] == [0, 1, 2]


def test_corrections_survive_upkeep_and_leave_with_their_recording(lake: Lake) -> None:
    for one in "ab":
        Corrections(lake).save(make("A zebra.", one))
        AccessLog(lake).add("Ann", [one], "page")
    compact(lake)
    assert run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)]) == 0
    promote(lake, OTHER)
    assert read_shown(lake) == {"a": ("A zebra.", "Ann"), "b": ("A zebra.", "Ann")}
    receipt = forget(lake, Subjects(recordings=("a",)))
    assert (receipt.corrections, receipt.accesses) == (1, 1)
    assert read_shown(lake) == {"b": ("A zebra.", "Ann")}
    with connect(str(lake.uri), names=("correction_records", "access_records")) as database:
        assert database.sql("SELECT recording_id FROM correction_records").fetchall() == [("b",)]
        assert database.sql("SELECT who, recording_id, what FROM access_records").fetchall() == [("Ann", "b", "page")]


def test_who_opened_what_is_written_down_in_a_lake_that_was_restored_from_an_older_backup(lake: Lake) -> None:
    """The table must be as one that dictalake makes: else nothing could be erased from this lake any more."""
    log = AccessLog(lake)
    log.add("Ann", ["a"], "page")
    shutil.rmtree(f"{lake.uri}/accesses")
    log.add("Ann", ["b"], "page")
    assert forget(lake, Subjects(recordings=("b",))).accesses == 1
