"""What was replaced is written down by whoever changed the lake, and no reader takes what no longer holds."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake import superseded
from dictalake.lake.contract import without_docs
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.fingerprints import read_fingerprints
from dictalake.lake.maintenance import compact
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import make_transcripts
from dictalake.lake.storage import open_storage
from dictalake.lake.superseded import WrittenDown, open_superseded, refresh_superseded
from tests.truth_lake import ask, commit, make_lake, make_version, name_recording, show

URIS = [f"gs://a/{number}" for number in range(6)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = make_lake(tmp_path)
    RunLog(lake)
    return lake


def read_written(lake: Lake) -> WrittenDown:
    """What a reader takes from what was written down."""
    rows, storage = open_storage(lake, "transcripts"), open_storage(lake, "superseded")
    return open_superseded(storage, DeltaTable(rows.uri), rows, read_fingerprints(lake))


def list_superseded(lake: Lake) -> dict[str, str]:
    return dict(ask(lake, "FROM superseded"))


def test_after_a_killed_run_compaction_writes_down_what_was_replaced(lake: Lake) -> None:
    commit(lake, *(make_version(uri) for uri in URIS))
    refresh_superseded(lake)
    commit(lake, make_version(URIS[0], 2, day=2))  # its run was killed before it wrote anything down
    assert read_written(lake).pairs is None
    then = time.time() - 2 * 86_400
    for path in Path(f"{lake.uri}/transcripts/_delta_log").iterdir():
        os.utime(path, (then, then))
    compact(lake)  # and the log no longer says what came
    written = read_written(lake)
    assert written.has_single_keys
    assert written.pairs is not None
    assert written.pairs.to_table()["recording_id"].to_pylist() == [name_recording(URIS[0], 1)]


def test_after_a_killed_run_an_erasure_writes_down_what_was_replaced(lake: Lake) -> None:
    commit(lake, *(make_version(uri) for uri in URIS))
    refresh_superseded(lake)
    commit(lake, *(make_version(uri, 2, day=2) for uri in URIS[:2]))
    forget(lake, Subjects(uris=(URIS[1],)))
    written = read_written(lake)
    assert written.has_single_keys
    assert written.pairs is not None
    assert written.pairs.to_table()["recording_id"].to_pylist() == [name_recording(URIS[0], 1)]


def test_an_erasure_does_not_look_at_every_row_for_readers(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(lake, *(make_version(uri) for uri in URIS))
    monkeypatch.setattr(superseded, "_compute", lambda *_: pytest.fail("it looked at every row"))
    monkeypatch.setattr(superseded, "_has_doubled_key", lambda *_: pytest.fail("it looked at every key"))
    forget(lake, Subjects(uris=(URIS[1],)))
    assert read_written(lake) == WrittenDown(None, False)
    assert show(lake).keys() == set(URIS) - {URIS[1]}


def test_many_erasures_do_not_make_what_was_written_down_too_old(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superseded, "_MOST_VERSIONS", 5)  # each erasure writes two
    monkeypatch.setattr(superseded, "_AGED", 2)
    commit(lake, *(make_version(uri) for uri in URIS))
    refresh_superseded(lake)
    monkeypatch.setattr(superseded, "_compute", lambda *_: pytest.fail("no row came"))
    for uri in URIS[:4]:
        forget(lake, Subjects(uris=(uri,)))
        assert read_written(lake).pairs is not None


def test_only_recordings_that_share_a_uri_with_new_rows_are_looked_at_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, *(make_version(uri) for uri in URIS))
    commit(lake, *(make_version(uri, 2, day=2) for uri in URIS[:3]))
    assert refresh_superseded(lake) == 3
    commit(lake, make_version(URIS[0], 3, day=3), make_version(URIS[5], 2, day=3), make_version("gs://a/new"))
    looked_at, compute = [], superseded._compute

    def count(versions: pa.Table, *more: Any) -> dict[str, str]:
        looked_at.append(versions.num_rows)
        return compute(versions, *more)

    with monkeypatch.context() as counted:
        counted.setattr(superseded, "_compute", count)
        assert refresh_superseded(lake) == 5
    assert looked_at == [6]
    found = list_superseded(lake)
    assert found[name_recording(URIS[0], 1)] == name_recording(URIS[0], 3)
    shutil.rmtree(f"{lake.uri}/superseded")
    assert list_superseded(lake) == found


def test_many_new_rows_are_not_held_in_memory(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(lake, make_version(URIS[0]))
    refresh_superseded(lake)
    commit(lake, *(make_version(uri, 2, day=2) for uri in URIS))
    monkeypatch.setattr(superseded, "_MOST_NEW_ROWS", 5)
    compute = superseded._compute

    def refuse(versions: Any, *more: Any) -> dict[str, str]:
        assert not isinstance(versions, pa.Table)
        return compute(versions, *more)

    monkeypatch.setattr(superseded, "_compute", refuse)
    assert refresh_superseded(lake) == 1


def test_a_table_that_was_restored_from_a_backup_is_not_taken_for_the_newer_one(lake: Lake, tmp_path: Path) -> None:
    """The other tables are newer than the backup, and its versions count on from an older one."""
    commit(lake, make_version(URIS[0]), make_version(URIS[1]))
    table, backup = f"{lake.uri}/transcripts", tmp_path / "backup"
    shutil.copytree(table, backup)
    commit(lake, make_version(URIS[0], 2, day=2))
    refresh_superseded(lake)
    assert show(lake)[URIS[0]] == ("2", "aaaaaaaaaaaa")
    shutil.rmtree(table)
    shutil.copytree(backup, table)
    assert show(lake)[URIS[0]] == ("1", "aaaaaaaaaaaa"), "an older version"
    commit(lake, make_version(URIS[1], 2, day=2))  # as many versions as before
    assert show(lake) == {URIS[0]: ("1", "aaaaaaaaaaaa"), URIS[1]: ("2", "aaaaaaaaaaaa")}
    refresh_superseded(lake)
    assert list_superseded(lake) == {name_recording(URIS[1], 1): name_recording(URIS[1], 2)}


def test_keys_of_a_restored_table_are_not_taken_for_single_ones(lake: Lake, tmp_path: Path) -> None:
    commit(lake, make_version(URIS[0]))
    table, backup = f"{lake.uri}/transcripts", tmp_path / "backup"
    shutil.copytree(table, backup)
    commit(lake, make_version(URIS[1]))
    refresh_superseded(lake)
    shutil.rmtree(table)
    shutil.copytree(backup, table)
    rows = make_transcripts([make_version(URIS[0])])
    write_deltalake(table, rows.cast(without_docs(rows.schema)), mode="append")
    assert show(lake) == {URIS[0]: ("1", "aaaaaaaaaaaa")}


def test_rows_that_somebody_else_removes_replace_nothing_any_more(lake: Lake) -> None:
    commit(lake, make_version(URIS[0]))
    commit(lake, make_version(URIS[0], 2, day=2))
    refresh_superseded(lake)
    DeltaTable(f"{lake.uri}/transcripts").restore(1)
    assert show(lake) == {URIS[0]: ("1", "aaaaaaaaaaaa")}
    refresh_superseded(lake)
    assert list_superseded(lake) == {}


def test_a_version_that_is_the_newest_again_is_no_longer_replaced(lake: Lake) -> None:
    commit(lake, make_version(URIS[0], 1), make_version(URIS[0], 2, day=2))
    refresh_superseded(lake)
    commit(lake, make_version(URIS[0], 1, attempt=1, day=3, modified=20))  # the store gave it a newer date
    refresh_superseded(lake)
    assert list_superseded(lake) == {name_recording(URIS[0], 2): name_recording(URIS[0], 1)}


def test_who_is_overtaken_does_not_write_down_what_is_older(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(lake, make_version(URIS[0]), make_version(URIS[0], 2, day=2))
    write, others = superseded._write_pairs, [lake]

    def write_late(*values: Any) -> None:
        if others:
            commit(others.pop(), make_version(URIS[0], 3, day=3))
            assert refresh_superseded(lake) == 2
        write(*values)

    monkeypatch.setattr(superseded, "_write_pairs", write_late)
    assert refresh_superseded(lake) == 2
    assert read_written(lake).pairs is not None
    assert list_superseded(lake) == {name_recording(URIS[0], one): name_recording(URIS[0], 3) for one in (1, 2)}


def test_what_is_erased_before_it_is_written_down_is_in_no_pair(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(lake, *(make_version(uri, version, day=version) for uri in URIS[:2] for version in (1, 2)))
    write, others = superseded._write_pairs, [lake]

    def write_late(*values: Any) -> None:
        if others:
            forget(others.pop(), Subjects(uris=(URIS[0],)))
        write(*values)

    monkeypatch.setattr(superseded, "_write_pairs", write_late)
    assert refresh_superseded(lake) == 1
    pairs = DeltaTable(f"{lake.uri}/superseded").to_pyarrow_table()
    assert pairs["recording_id"].to_pylist() == [name_recording(URIS[1], 1)]
    assert read_written(lake).pairs is not None


def test_nothing_is_made_where_there_is_no_lake(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no dictalake table"):
        refresh_superseded(make_lake(tmp_path))
    assert list(tmp_path.rglob("_delta_log")) == []
