"""The lake on Google Cloud Storage and S3: real clients against real servers on this machine."""

from __future__ import annotations

import multiprocessing
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import fsspec
import pyarrow as pa
import pytest
import yaml
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from dictalake.cli.main import run_command
from dictalake.config.sections import Config, Lake
from dictalake.errors import RunError
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.manifests import BlockPlace, Manifests
from dictalake.lake.query import open_lake
from dictalake.lake.reports import Reports
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import PARTITIONS, TRANSCRIPTS
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import CommitResult, TranscriptTable
from dictalake.reporting.queries import write_report
from tests.lake_rows import FINGERPRINT, done_ids, make_rows

if TYPE_CHECKING:
    from tests.emulators import ObjectStore


@pytest.fixture
def lake(object_store: ObjectStore) -> Lake:
    return object_store.make_lake()


def test_staged_files_are_invisible_until_they_are_committed(lake: Lake) -> None:
    table = TranscriptTable(lake)
    staged = write_staged(make_rows(["a", "b"]), lake)
    infos = open_storage(lake, "transcripts").filesystem.get_file_info([file.path for file in staged])
    assert [info.size for info in infos] == [file.size_bytes for file in staged]
    assert open_lake(str(lake.uri), lake.storage_options).count_rows() == 0
    assert table.commit(staged) == CommitResult(version=1, files=1, rows=2, already_there=0)
    transcripts = open_lake(str(lake.uri), lake.storage_options)
    query = f"SELECT recording_id, text, words[1].end_s FROM transcripts WHERE fingerprint = '{FINGERPRINT}' ORDER BY ALL"
    answer = duckdb.sql(query)
    assert answer is not None
    assert answer.fetchall() == [("a", "No acute fracture.", 0.1525), ("b", "No acute fracture.", 0.1525)]
    assert transcripts.schema.equals(TRANSCRIPTS)


def test_an_object_is_made_once_and_its_first_content_stays(lake: Lake) -> None:
    storage = open_storage(lake, "folder")
    assert [storage.create_bytes("a/one", content) for content in (b"first", b"second")] == [True, False]
    with storage.filesystem.open_input_stream("a/one") as stream:
        assert stream.read() == b"first"


def test_the_same_recordings_from_two_writers_are_there_once(lake: Lake) -> None:
    first, second = TranscriptTable(lake), TranscriptTable(lake)
    assert (done_ids(first), done_ids(second)) == ([], [])
    mine, theirs = write_staged(make_rows(["a", "b"]), lake), write_staged(make_rows(["b", "c"]), lake)
    assert first.commit(mine) == CommitResult(version=1, files=1, rows=2, already_there=0)
    assert second.commit(theirs) == CommitResult(version=2, files=1, rows=1, already_there=1)
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("c", 0)]
    assert open_lake(str(lake.uri), lake.storage_options).count_rows() == 3


def test_resume_reads_what_is_done_also_past_a_checkpoint(lake: Lake) -> None:
    table = TranscriptTable(lake)
    table.commit(write_staged(make_rows(["a"]), lake))
    DeltaTable(table.uri, storage_options=dict(open_storage(lake, "transcripts").delta_options)).create_checkpoint()
    table.commit(write_staged(make_rows(["b"], attempt=1), lake))
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 1)]


def append_blindly(delta: DeltaTable, file: StagedFile) -> None:
    """A commit on the version that ``delta`` has, as TranscriptTable makes it but without its second look."""
    partition = {"fingerprint": file.fingerprint, "recorded_month": file.recorded_month}
    action = AddAction(file.path, file.size_bytes, partition, file.modified_ms, True, file.stats)
    properties = CommitProperties(app_transactions=[Transaction(file.fingerprint, 0)])
    delta.create_write_transaction([action], "append", TRANSCRIPTS, list(PARTITIONS), commit_properties=properties)


def test_of_two_commits_on_the_same_version_one_wins(lake: Lake) -> None:
    uri = TranscriptTable(lake).uri
    options = dict(open_storage(lake, "transcripts").delta_options)
    first, second = (DeltaTable(uri, storage_options=options) for _ in range(2))
    (mine,), (theirs,) = write_staged(make_rows(["a"]), lake), write_staged(make_rows(["a"]), lake)
    append_blindly(first, mine)
    with pytest.raises(CommitFailedError):
        append_blindly(second, theirs)
    assert done_ids(TranscriptTable(lake)) == [("a", 0)]


def commit_together(uri: str, options: dict[str, str], recording_ids: list[str], start: Barrier, won: SimpleQueue[int]) -> None:
    """Runs in a separate process: commits one recording after another, each at the same moment as the other processes."""
    lake = Lake.model_validate({"uri": uri, "storage_options": options})
    table = TranscriptTable(lake)
    staged = [write_staged(make_rows([recording_id]), lake) for recording_id in recording_ids]
    rows = 0
    for files in staged:
        start.wait(timeout=120)
        rows += table.commit(files).rows
    won.put(rows)


def test_writers_that_race_for_the_same_recordings_leave_each_once(lake: Lake) -> None:
    ids = [f"recording-{number}" for number in range(5)]
    spawn = multiprocessing.get_context("spawn")
    won: SimpleQueue[int] = spawn.SimpleQueue()
    arguments = (str(lake.uri), lake.storage_options, ids, spawn.Barrier(3), won)
    writers = [spawn.Process(target=commit_together, args=arguments, daemon=True) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert sum(won.get() for _ in writers) == len(ids)
    assert done_ids(TranscriptTable(lake)) == [(recording_id, 0) for recording_id in ids]
    assert open_lake(str(lake.uri), lake.storage_options).count_rows() == len(ids)


def test_run_records_and_manifests_are_kept(lake: Lake) -> None:
    log = RunLog(lake)
    log.append(RunRecord(run_id="r1", event="started", recordings=2))
    manifests, block = Manifests(lake), pa.table({"recording_id": ["a", "b"]})
    assert list(manifests.write("r1", [block, block.slice(1)], block.schema)) == [(0, 0), (0, 1)]
    assert manifests.read_block("r1", BlockPlace(0, 1)).equals(block.slice(1))
    assert manifests.find(["r1", "gone"], block.schema).count_rows() == 3
    assert log.read().select(["run_id", "event", "recordings"]).to_pylist() == [
        {"run_id": "r1", "event": "started", "recordings": 2}
    ]


def test_reports_are_written_to_the_bucket_and_what_is_erased_leaves_them(lake: Lake) -> None:
    TranscriptTable(lake).commit(write_staged(make_rows(["a", "b"]), lake))
    RunLog(lake).append(RunRecord(run_id="run-1", event="started", fingerprint=FINGERPRINT))
    assert Reports(lake).find() == []
    assert write_report(Config.model_validate({"lake": lake.model_dump()}), "run-1") == "reports/run-1.html"
    assert Reports(lake).list_recordings("run-1") == {"a", "b"}
    assert forget(lake, Subjects(recordings=("b",))).report_lines == 1
    assert Reports(lake).find() == ["run-1"]
    assert Reports(lake).list_recordings("run-1") == {"a"}


def test_the_emulator_serves_fsspec_at_the_same_address(object_store: ObjectStore) -> None:
    bucket = object_store.make_bucket()
    archive = fsspec.filesystem(object_store.scheme, **object_store.fsspec_options)
    archive.pipe_file(f"{bucket}/in/take #1.wav", b"RIFF")
    assert archive.find(bucket) == [f"{bucket.partition('://')[2]}/in/take #1.wav"]
    assert archive.cat_file(f"{bucket}/in/take #1.wav", start=1, end=3) == b"IF"


def test_a_bucket_that_is_not_there_is_one_clear_line(object_store: ObjectStore) -> None:
    uri = f"{object_store.scheme}://no-such-bucket/lake"
    with pytest.raises(RunError, match=r"cannot (make|open) the table at .*check lake\.uri and its credentials$"):
        TranscriptTable(Lake.model_validate({"uri": uri, "storage_options": object_store.storage_options}))


def test_sql_is_answered_from_the_files_of_the_bucket(lake: Lake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TranscriptTable(lake).commit(write_staged(make_rows(["a", "b"]), lake))
    RunLog(lake).append(RunRecord(run_id="r1", event="started"))
    config = tmp_path / "lake.yaml"
    config.write_text(
        yaml.safe_dump({"lake": {"uri": lake.uri, "storage_options": dict(lake.storage_options)}}), encoding="utf-8"
    )
    sql = "SELECT (SELECT count(*) FROM transcripts) AS transcripts, run_id, state FROM runs"
    assert run_command("query", ["--config", str(config), "--format", "csv", sql]) == 0
    assert capfd.readouterr().out == '"transcripts","run_id","state"\n2,"r1","unfinished"\n'


def test_all_files_of_a_folder_are_listed_however_deep_they_lie(lake: Lake) -> None:
    storage = open_storage(lake, "findings")
    assert list(storage.list_files()) == []
    paths = {"top.parquet", "fingerprint=1/recorded_month=2026-03/a b%.parquet", "_delta_log/0.json"}
    for path in paths:
        storage.write_bytes(path, b"x")
    listed = [one for page in storage.list_files() for one in page]
    assert {one.path for one in listed} == paths
    assert all(one.modified_s > 1.7e9 for one in listed)
