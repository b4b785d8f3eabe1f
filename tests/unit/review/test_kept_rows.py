"""What the pages list is what the lake's view recordings says, whatever came, went, was promoted, rechecked or erased."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.fingerprints import promote
from dictalake.lake.maintenance import compact
from dictalake.lake.query import connect
from dictalake.lake.rechecks import Recheck, RecheckLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.review import kept_rows
from dictalake.review.snapshot import Snapshot
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

OTHER = "000000000000"
COLUMNS = (
    "recording_id, uri, recorded_at, recorded_at_source, recorded_month, duration_s, channels, specialty, status, reason, "
    "confidence, lost_s, model, fingerprint, attempt, run_id, CAST(metadata AS VARCHAR) AS metadata"
)
START = datetime(2026, 3, 1, tzinfo=UTC)


def make_random_row(rng: random.Random, number: int) -> dict[str, Any]:
    """One of few recordings at one of fewer places, so that they replace each other."""
    name = rng.choice("abcdefghijkl")
    fingerprint, month = rng.choice([FINGERPRINT, OTHER]), rng.choice(["2026-03", "2026-04"])
    known = {"attempt": number, "fingerprint": fingerprint, "recorded_month": month}
    if rng.random() < 0.2:
        return make_failed_row(name, **known)
    row = make_row(name, confidence=rng.random(), **known)
    row["source"] |= {"uri": f"gs://archive/{ord(name) % 4}.wav", "modified_at": START + timedelta(hours=rng.randrange(9))}
    row["quality"]["lost_s"] = rng.choice([None, 0.0, 0.04, 1.5])
    row["provenance"] |= {"transcribed_at": START + timedelta(minutes=number), "model_id": rng.choice(["m", None])}
    return row


def list_rows(lake: Lake, snapshot: Snapshot) -> tuple[list[Any], list[Any]]:
    """What the pages list, and what a query of the lake says."""
    sql = f"SELECT {COLUMNS} FROM {{}} ORDER BY ALL"
    snapshot.refresh()
    listed = [tuple(row.values()) for row in snapshot.query(sql.format("listed"))]
    with connect(str(lake.uri), names=("recordings",)) as database:
        return listed, database.execute(sql.format("recordings")).fetchall()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_listed_is_what_a_query_of_the_lake_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """With a share of 0 each commit is taken in as a whole, with 1 by what it touched."""
    monkeypatch.setattr(kept_rows, "_MOST_TOUCHED", share)
    rng = random.Random(4)
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    table = TranscriptTable(lake)
    table.committed(FINGERPRINT), table.committed(OTHER)
    table.commit(write_staged(make_transcripts([make_random_row(rng, number) for number in range(12)]), lake))
    snapshot = Snapshot(lake)
    for number in range(20, 30):
        rows = [make_random_row(rng, 10 * number + place) for place in range(rng.randrange(1, 4))]
        table.commit(write_staged(make_transcripts(rows), lake))
        if number == 23:
            promote(lake, OTHER)
        if number in (24, 26):
            row = rows[0]
            found = {"verdict": "lost", "missing_s": 2.0} if number == 24 else {"verdict": "complete", "missing_s": 0.0}
            named = {name: row[name] for name in ("recording_id", "fingerprint", "attempt")}
            RecheckLog(lake).append([Recheck(**named, loader=number, at=START, **found)])  # type: ignore[arg-type]
        if number == 27:
            forget(lake, Subjects(recordings=(rows[0]["recording_id"],)))
        listed, said = list_rows(lake, snapshot)
        assert listed == said, number


def test_a_recording_that_lies_in_a_file_of_the_server_is_gone_from_it_when_it_is_erased(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    for name in "abcd":
        TranscriptTable(lake).commit(write_staged(make_transcripts([make_row(name)]), lake))
    snapshot = Snapshot(lake)
    snapshot.refresh()
    folder = snapshot._rows.spill
    (folder / "duckdb_temp_storage.tmp").write_text("Mr Smith")
    forget(lake, Subjects(recordings=("b",)))
    listed, said = list_rows(lake, snapshot)
    assert [row[0] for row in listed] == ["a", "c", "d"]
    assert listed == said
    assert not folder.exists()


def show_with_backup(folder: Path) -> tuple[Lake, Path, Snapshot]:
    """A lake of "a" and "b", a backup from before "b" came, and what a server has of the lake."""
    lake, backup = Lake.model_validate({"uri": str(folder / "lake")}), folder / "backup"
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a")]), lake))
    shutil.copytree(str(lake.uri), backup)
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("b")]), lake))
    snapshot = Snapshot(lake)
    snapshot.refresh()
    return lake, backup, snapshot


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_lake_that_is_made_anew_under_a_server_is_seen(tmp_path: Path, *, is_restored: bool) -> None:
    """It has as many versions as the one before, which is why nothing else tells them apart."""
    lake, backup, snapshot = show_with_backup(tmp_path)
    kept = snapshot._rows
    snapshot.refresh()
    assert snapshot._rows is kept
    shutil.rmtree(str(lake.uri))
    if is_restored:
        shutil.copytree(backup, str(lake.uri))
    for name in "c" if is_restored else "de":
        TranscriptTable(lake).commit(write_staged(make_transcripts([make_row(name)]), lake))
    listed, said = list_rows(lake, snapshot)
    assert ([row[0] for row in listed], listed == said) == (list("ac" if is_restored else "de"), True)


def test_a_lake_that_is_restored_while_people_ask_is_seen(tmp_path: Path) -> None:
    lake, backup, snapshot = show_with_backup(tmp_path)
    shutil.rmtree(str(lake.uri))
    with pytest.raises(RunError, match="there is no dictalake table"):
        snapshot.refresh()
    shutil.copytree(backup, str(lake.uri))
    listed, said = list_rows(lake, snapshot)
    assert ([row[0] for row in listed], listed == said) == (["a"], True)


def test_what_was_there_before_is_not_listed_where_a_new_lake_cannot_be_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a")]), lake))
    snapshot = Snapshot(lake)
    snapshot.refresh()
    shutil.rmtree(str(lake.uri))
    for name in "bcd":
        TranscriptTable(lake).commit(write_staged(make_transcripts([make_row(name)]), lake))
    with monkeypatch.context() as away:
        away.setattr("dictalake.review.snapshot.KeptRows", Mock(side_effect=OSError))
        with pytest.raises(RunError, match="cannot read the lake"):
            snapshot.refresh()
    listed, said = list_rows(lake, snapshot)
    assert ([row[0] for row in listed], listed == said) == (["b", "c", "d"], True)


def test_a_commit_that_could_not_be_taken_in_is_no_other_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a")]), lake))
    snapshot = Snapshot(lake)
    snapshot.refresh()
    kept = snapshot._rows
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("b")]), lake))
    with monkeypatch.context() as away:
        away.setattr(kept, "_take", Mock(side_effect=OSError))
        with pytest.raises(RunError, match="cannot read the lake"):
            snapshot.refresh()
    listed, said = list_rows(lake, snapshot)
    assert ([row[0] for row in listed], listed == said) == (["a", "b"], True)
    assert snapshot._rows is kept


def test_a_compaction_changes_nothing_that_is_listed(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    for name in "abc":
        TranscriptTable(lake).commit(write_staged(make_transcripts([make_row(name)]), lake))
    snapshot = Snapshot(lake)
    snapshot.refresh()
    compact(lake)
    listed, said = list_rows(lake, snapshot)
    assert ([row[0] for row in listed], listed == said) == (["a", "b", "c"], True)
    assert [row["recording_id"] for row in snapshot.read_rows("b")] == ["b"]


def test_who_asks_while_a_compaction_is_taken_in_gets_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    for name in "abc":
        TranscriptTable(lake).commit(write_staged(make_transcripts([make_row(name)]), lake))
    snapshot = Snapshot(lake)
    snapshot.refresh()
    compact(lake)
    answers: list[Any] = []

    def ask_meanwhile() -> None:  # as another thread, at the time when the rows are there anew and the corrections are not
        answers.extend(snapshot.query("SELECT count(*) AS checked FROM checked"))

    monkeypatch.setattr(snapshot.corrections, "refresh", ask_meanwhile)
    before = snapshot._rows
    snapshot.refresh()
    assert snapshot._rows is not before
    assert answers == [{"checked": 0}]
    assert snapshot.query("SELECT count(*) AS checked FROM checked") == answers


def test_an_answer_that_others_drop_meanwhile_is_given(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a")]), lake))
    snapshot = Snapshot(lake)
    snapshot.refresh()

    class Dropped(dict[Any, Any]):
        """One that another thread clears as soon as something is in it."""

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            self.clear()

    snapshot._answers = (snapshot.version, Dropped())
    assert snapshot.remember("how many", lambda: 3) == 3
