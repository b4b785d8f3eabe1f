"""A commit follows the log and writes the next version of it, and never asks for the list of the table's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.table import TableFeatures

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.log_tail import LogTail
from dictalake.lake.maintenance import compact
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, done_ids, make_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def follow(lake: Lake) -> LogTail:
    storage = open_storage(lake, TRANSCRIPTS_FOLDER)
    return LogTail(storage, DeltaTable(storage.uri))


def commit(lake: Lake, recording_id: str) -> None:
    TranscriptTable(lake).commit(write_staged(make_rows([recording_id]), lake))


def test_commits_of_runs_do_not_open_the_table(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    table, other = TranscriptTable(lake), TranscriptTable(lake)
    for run in (table, other):
        run.committed(FINGERPRINT)
    monkeypatch.setattr("dictalake.lake.table.open_table", lambda *_: pytest.fail("a commit opened the table"))
    monkeypatch.setattr("dictalake.lake.table.DeltaTable", lambda *_, **__: pytest.fail("a commit opened the table"))
    for number in range(3):
        other.commit(write_staged(make_rows([f"other-{number}"]), lake))
        assert table.commit(write_staged(make_rows([f"own-{number}", f"other-{number}"]), lake)).rows == 1


def test_of_two_that_append_the_same_version_one_is_refused(lake: Lake) -> None:
    commit(lake, "a")
    first, second = follow(lake), follow(lake)
    assert first.append([], {"x": 1})
    assert not second.append([], {"y": 1})
    [missed] = second.read_new() or []
    assert missed.transactions == {"x": 1}
    second.advance(1)
    assert second.append([], {"y": 1})
    assert DeltaTable(f"{lake.uri}/transcripts").version() == 3


def test_delta_rs_and_other_engines_read_what_was_appended(lake: Lake) -> None:
    commit(lake, "a")
    commit(lake, "b")
    delta = DeltaTable(f"{lake.uri}/transcripts")
    assert sorted(delta.to_pyarrow_table(columns=["recording_id"])["recording_id"].to_pylist()) == ["a", "b"]
    assert delta.transaction_version(FINGERPRINT) == 1
    assert delta.history(1)[0]["operation"] == "WRITE"
    assert delta.get_add_actions(flatten=True)["num_records"].to_pylist() == [1, 1]


def test_a_log_that_was_cleaned_up_is_not_appended_to_in_its_past(lake: Lake) -> None:
    commit(lake, "a")
    tail = follow(lake)
    for recording_id in "bcd":
        commit(lake, recording_id)
    DeltaTable(f"{lake.uri}/transcripts").create_checkpoint()
    for version in range(4):
        Path(f"{lake.uri}/transcripts/_delta_log/{version:020}.json").unlink()
    assert tail.read_new() is None
    assert follow(lake).read_new() == []


def test_a_run_does_not_write_on_after_an_upgrade_to_another_schema(lake: Lake) -> None:
    table = TranscriptTable(lake)
    table.committed(FINGERPRINT)
    DeltaTable(table.uri).alter.set_table_properties({"dictalake.schemaVersion": "99"}, raise_if_not_exists=False)
    with pytest.raises(RunError, match="has schema version 99, this dictalake writes version"):
        table.commit(write_staged(make_rows(["a"]), lake))


def test_other_properties_of_the_table_may_change_under_a_run(lake: Lake) -> None:
    table = TranscriptTable(lake)
    table.committed(FINGERPRINT)
    DeltaTable(table.uri).alter.set_table_properties({"delta.checkpointInterval": "50"})
    assert table.commit(write_staged(make_rows(["a"]), lake)).rows == 1


def test_a_table_that_asks_more_of_writers_is_written_by_delta_rs(lake: Lake) -> None:
    commit(lake, "x")
    before = TranscriptTable(lake)
    before.committed(FINGERPRINT)
    DeltaTable(before.uri).alter.add_feature([TableFeatures.ChangeDataFeed], allow_protocol_versions_increase=True)
    for table, recording_id in ((before, "a"), (TranscriptTable(lake), "b"), (before, "b")):
        table.commit(write_staged(make_rows([recording_id]), lake))
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("x", 0)]
    newest = sorted(Path(f"{before.uri}/_delta_log").glob("*.json"))[-1].read_text()
    assert "delta-rs" in newest


@pytest.mark.parametrize(("files", "every"), [(0, 25), (1_000, 30), (150_000, 775)])
def test_the_more_files_a_table_has_the_rarer_are_its_checkpoints(lake: Lake, files: int, every: int) -> None:
    commit(lake, "a")
    tail, due = follow(lake), []
    Path(f"{lake.uri}/transcripts/_delta_log/_last_checkpoint").write_text(json.dumps({"version": 1, "size": files}))
    tail.read_new()
    for version in range(1, 2 * every + 2):
        tail.version = version
        due += [version] if tail.is_due else []
    assert due == [1 + every, 1 + 2 * every]


def test_a_long_run_writes_checkpoints_and_keeps_no_older_log_than_its_retention(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dictalake.lake.log_tail._CHECKPOINT_COMMITS", 3)
    table = TranscriptTable(lake)
    delta = DeltaTable(table.uri)
    delta.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    for number in range(7):
        table.commit(write_staged(make_rows([f"{number}"]), lake))
    names = sorted(path.name for path in Path(f"{table.uri}/_delta_log").glob("0*"))
    assert names[0] == f"{6:020}.checkpoint.parquet"
    assert len(done_ids(TranscriptTable(lake))) == 7
    assert table.commit(write_staged(make_rows(["0"]), lake)).already_there == 1


def test_an_owner_who_keeps_the_whole_log_has_all_of_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.lake.log_tail._CHECKPOINT_COMMITS", 3)
    table = TranscriptTable(lake)
    kept = {"delta.logRetentionDuration": "interval 0 seconds", "delta.enableExpiredLogCleanup": "false"}
    DeltaTable(table.uri).alter.set_table_properties(kept)
    for number in range(4):
        table.commit(write_staged(make_rows([f"{number}"]), lake))
    compact(lake)
    log = Path(f"{table.uri}/_delta_log")
    assert (log / "_last_checkpoint").exists()
    assert len(list(log.glob("0*.json"))) == DeltaTable(table.uri).version() + 1


@pytest.mark.parametrize("name", ["_last_checkpoint", f"{2:020}.json"])
def test_a_file_of_the_log_that_is_half_written_is_read_again(lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    commit(lake, "a")
    table = TranscriptTable(lake)
    table.committed(FINGERPRINT)
    commit(lake, "b")
    DeltaTable(table.uri).create_checkpoint()
    file = Path(f"{table.uri}/_delta_log/{name}")
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    monkeypatch.setattr("dictalake.retries.pause", lambda _: file.write_text(whole))
    result = table.commit(write_staged(make_rows(["b", "c"]), lake))
    assert (result.rows, result.already_there, result.storage_retries) == (1, 1, 1)


def test_a_checkpoint_that_fails_does_not_fail_the_commit(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.lake.log_tail._CHECKPOINT_COMMITS", 1)
    table = TranscriptTable(lake)
    table.committed(FINGERPRINT)

    def fail(*_: object, **__: object) -> None:
        raise OSError("503")

    monkeypatch.setattr("dictalake.lake.log_tail.DeltaTable", fail)
    assert table.commit(write_staged(make_rows(["a"]), lake)).rows == 1


def test_the_known_ids_are_those_of_every_model_and_need_no_look_before(lake: Lake) -> None:
    table = TranscriptTable(lake)
    for recording_id, fingerprint in (("a", FINGERPRINT), ("b", "000000000000")):
        TranscriptTable(lake).commit(write_staged(make_rows([recording_id], fingerprint=fingerprint), lake))
    known = table.known()
    assert known.schema.names == ["recording_id", "archive_id"]
    assert sorted(known.to_table()["recording_id"].to_pylist()) == ["a", "b"]
