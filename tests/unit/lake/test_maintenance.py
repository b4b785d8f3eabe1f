"""Compaction: fewer files, the same rows, and nothing taken away from those who read or write meanwhile."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from dictalake.cli.schema import upgrade
from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.maintenance import compact
from dictalake.lake.manifests import Manifests
from dictalake.lake.query import connect, open_lake
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.records import Recording
from dictalake.workflow import columns
from tests.lake_rows import done_ids, make_failed_row, make_row, make_rows
from tests.old_lakes import schemas_of, write_lake

DAY_S = 86_400


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    RunLog(lake)
    return lake


def commit_many(lake: Lake, count: int, prefix: str = "a") -> None:
    table = TranscriptTable(lake)
    for number in range(count):
        table.commit(write_staged(make_rows([f"{prefix}{number}"]), lake))


def test_small_files_are_put_together_and_rows_stay(lake: Lake) -> None:
    commit_many(lake, 12)
    before = open_lake(str(lake.uri)).to_table().sort_by("recording_id")
    (transcripts, *_) = compact(lake)
    assert (transcripts.files_before, transcripts.files_after, transcripts.removed) == (12, 1, 0)
    after = open_lake(str(lake.uri))
    assert after.to_table().sort_by("recording_id").equals(before)
    assert after.to_table(filter=(ds.field("recording_id") == "a3") & (ds.field("status") == "ok")).num_rows == 1
    assert connect(str(lake.uri)).execute("SELECT count(*) FROM transcripts WHERE recording_id = 'a3'").fetchall() == [(1,)]


def test_files_grow_to_the_size_that_is_asked_for(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake"), "file_mb": 1})
    RunLog(lake)
    table = TranscriptTable(lake)
    for part in range(12):  # each a quarter of a megabyte that does not compress
        noise = [make_row(f"{part}-{n}", text=os.urandom(8000).hex()) for n in range(32)]
        table.commit(write_staged(make_transcripts(noise), lake))
    (transcripts, *_) = compact(lake)
    assert 3 <= transcripts.files_after <= 5
    assert transcripts.largest_mb < 1.3


def test_compaction_leaves_no_more_of_the_log_than_is_kept(lake: Lake) -> None:
    commit_many(lake, 4)
    log = Path(f"{lake.uri}/transcripts/_delta_log")
    then = time.time() - 2 * DAY_S
    for path in log.glob("*.json"):
        os.utime(path, (then, then))
    compact(lake)
    assert f"{4:020}.json" not in {path.name for path in log.iterdir()}
    assert len(list(log.glob("*.checkpoint.parquet"))) == 1
    assert len(done_ids(TranscriptTable(lake))) == 4


def age(lake: Lake, path: str, days: float) -> Path:
    file = Path(f"{lake.uri}/transcripts/{path}")
    then = time.time() - days * DAY_S
    os.utime(file, (then, then))
    return file


def test_what_killed_runs_left_is_removed_after_the_retention_and_not_before(lake: Lake) -> None:
    commit_many(lake, 2)
    old, new = (write_staged(make_rows([name]), lake)[0] for name in ("old", "new"))
    old_file, new_file = age(lake, old.path, 8), age(lake, new.path, 6)
    compact(lake)
    assert not old_file.exists()
    assert new_file.exists()
    assert TranscriptTable(lake).commit([new]).rows == 1  # its run was slow
    with pytest.raises(RunError, match=r"^1 of 1 files that workers wrote are not below"):
        TranscriptTable(lake).commit([old])


def test_a_reader_that_opened_the_table_before_reads_on(lake: Lake) -> None:
    commit_many(lake, 5)
    opened = open_lake(str(lake.uri))
    compact(lake)
    assert opened.count_rows() == 5
    assert opened.to_table().num_rows == 5


def test_runs_commit_while_it_is_put_together(lake: Lake) -> None:
    commit_many(lake, 5)
    writer = threading.Thread(target=commit_many, args=(lake, 20, "b"))
    writer.start()
    for _ in range(4):
        compact(lake)
    writer.join()
    compact(lake)
    assert len(done_ids(TranscriptTable(lake))) == 25 == open_lake(str(lake.uri)).count_rows()


def test_a_lake_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^there is no dictalake table at .*: check lake\.uri, or run a backfill first$"):
        compact(Lake.model_validate({"uri": str(tmp_path / "nowhere")}))


def test_an_upgraded_lake_that_has_no_tombstones_yet_is_put_together(tmp_path: Path) -> None:
    lake = Lake.model_validate({"uri": str(tmp_path / "old")})
    write_lake(lake, 3, schemas_of(3), "a", "b")
    assert [line.partition(":")[0] for line in upgrade(lake)] == ["transcripts", "runs"]
    block = columns.recordings_to_table([Recording("a", "gs://archive/a.wav", "1", 1)])
    list(Manifests(lake).write("run-1", [block], block.schema))
    (manifest,) = (path for path in Path(f"{lake.uri}/manifests").rglob("*") if path.is_file())
    then = time.time() - 8 * DAY_S
    os.utime(manifest, (then, then))
    assert [done.table for done in compact(lake)] == ["transcripts", "runs"]
    assert not manifest.exists()  # the last step


def test_the_views_show_the_newest_good_row_and_what_failed_last(lake: Lake) -> None:
    rows = [
        make_failed_row("a"),
        make_row("a", attempt=1),
        make_failed_row("b"),
        make_row("c"),
        make_row("c", fingerprint="f2"),
    ]
    staged: list[StagedFile] = write_staged(make_transcripts(rows), lake)
    TranscriptTable(lake).commit(staged)
    database = connect(str(lake.uri))
    shown = database.execute("SELECT recording_id, attempt FROM transcripts ORDER BY ALL").fetchall()
    assert shown == [("a", 1), ("c", 0)]
    assert database.execute("SELECT recording_id FROM failures").fetchall() == [("b",)]
    assert database.execute("SELECT count(*) FROM history").fetchall() == [(5,)]
