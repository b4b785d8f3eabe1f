"""The log of a table without the property that keeps texts out of it: the texts are removed, and the rows stay."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from rich.console import Console

from dictalake.cli.erasure_receipt import show_receipt
from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake import delta_log
from dictalake.lake.delta_log import LogCleaning, clean_log
from dictalake.lake.erase import Plan, Subjects, forget
from dictalake.lake.maintenance import compact
from dictalake.lake.query import open_lake
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import RUNS, SCHEMA_VERSION, TRANSCRIPTS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import open_storage
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import done_ids, make_row, make_rows
from tests.old_lakes import OLDER, schemas_of, write_lake

TEXT, URI = "Zebrafinch in the left lobe.", "gs://archive/a.wav"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def write(lake: Lake, *rows: dict[str, Any]) -> None:
    TranscriptTable(lake).commit(write_staged(make_transcripts(rows), lake))


def fill_log(lake: Lake) -> None:
    """Rows "a" (with TEXT and URI), "b" and "c" in a table without properties, and their texts in its log, in a commit and a
    checkpoint, as the compaction of an upgraded lake left it."""
    write_lake(lake, SCHEMA_VERSION, schemas_of(SCHEMA_VERSION))
    write(lake, make_row("a", text=TEXT))
    for name in ("b", "c"):
        write(lake, make_row(name))
    RunLog(lake).append(RunRecord(run_id="run-2", event="started", archive_uri=URI))
    transcripts = DeltaTable(f"{lake.uri}/transcripts")
    transcripts.optimize.compact()
    transcripts.create_checkpoint()


def find_in_logs(lake: Lake, *words: str) -> list[str]:
    """The files in logs that contain one of ``words``, also compressed and temporary ones."""
    found = []
    for path in sorted(Path(str(lake.uri)).glob("*/_delta_log/**/*")):
        if path.is_file():
            content = path.read_bytes()
            if content[:4] == b"PAR1":
                content += str(pq.read_table(path).to_pylist()).encode()
            if any(word.encode() in content for word in words):
                found.append(f"{path.parts[-3]}/{path.name}")
    return found


def read_ids(lake: Lake) -> list[str]:
    return sorted(open_lake(str(lake.uri)).to_table(columns=["recording_id"])["recording_id"].to_pylist())


@pytest.mark.parametrize("version", OLDER)
def test_neither_an_upgrade_nor_compaction_nor_an_erasure_leaves_text_in_the_log(lake: Lake, version: int) -> None:
    write_lake(lake, version, schemas_of(version))
    run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
    write(lake, make_row("a", text=TEXT))
    write(lake, make_row("b"))
    compact(lake)
    assert find_in_logs(lake, TEXT, "No acute fracture.", "gs://archive/") == []
    receipt = forget(lake, Subjects(uris=(URI,)))
    assert find_in_logs(lake, TEXT, "No acute fracture.", "gs://archive/") == []
    assert (receipt.log_files, receipt.log_files_left) == (0, 0)
    assert read_ids(lake) == ["b"]


@pytest.mark.parametrize("version", OLDER)
def test_an_upgrade_takes_out_of_the_log_what_was_in_it_before(
    lake: Lake, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lake(lake, version, schemas_of(version), "a", "b")
    assert find_in_logs(lake, "No acute fracture.", URI) == ["transcripts/00000000000000000001.json"]
    run_command("schema", ["--upgrade", "--lake.uri", str(lake.uri)])
    assert f"; 1 files of its log cleaned of values of rows; version {SCHEMA_VERSION}\n" in capsys.readouterr().out
    assert find_in_logs(lake, "No acute fracture.", URI) == []
    assert read_ids(lake) == ["a", "b"]


def test_an_erasure_cleans_the_log_of_a_lake_that_was_upgraded_and_compacted_without_the_properties(lake: Lake) -> None:
    fill_log(lake)
    assert find_in_logs(lake, TEXT) == [
        "transcripts/00000000000000000005.checkpoint.parquet",
        "transcripts/00000000000000000005.json",
    ]
    assert "runs/00000000000000000002.json" in find_in_logs(lake, URI)
    receipt = forget(lake, Subjects(recordings=("a",)))
    assert find_in_logs(lake, TEXT, "No acute fracture.", "gs://archive/") == []  # of the rows that stay neither
    assert receipt.log_files >= 3
    assert receipt.log_files_left == 0
    assert json.loads((Path(str(lake.uri)) / receipt.path).read_text())["log_files"] == receipt.log_files
    assert read_ids(lake) == ["b", "c"]
    assert done_ids(TranscriptTable(lake)) == [("b", 0), ("c", 0)]
    compact(lake)
    assert find_in_logs(lake, TEXT, "No acute fracture.", "gs://archive/") == []
    assert forget(lake, Subjects(recordings=("b",))).log_files == 0


def test_a_compaction_cleans_the_log_of_a_table_without_the_properties(lake: Lake) -> None:
    fill_log(lake)
    compact(lake)
    assert find_in_logs(lake, TEXT, "No acute fracture.", "gs://archive/") == []
    assert read_ids(lake) == ["a", "b", "c"]


def test_a_compaction_whose_cleaning_failed_is_made_good_by_the_next(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_log(lake)

    def refuse(*_: Any) -> None:
        raise OSError("the storage is away")

    with monkeypatch.context() as patch:
        patch.setattr(delta_log, "_name_anew", refuse)
        with pytest.raises(RunError, match="run the same command again"):
            compact(lake)
    assert find_in_logs(lake, TEXT)
    assert [one.log_files_left for one in compact(lake)] == [0, 0, 0]
    assert find_in_logs(lake, TEXT, "No acute fracture.", "gs://archive/") == []


def test_run_records_are_written_beside_a_cleaning(lake: Lake) -> None:
    fill_log(lake)
    log, storage = RunLog(lake), open_storage(lake, "runs")
    stale = DeltaTable(storage.uri)
    records = [RunRecord(run_id=f"run-{number}", event="started", archive_uri=URI) for number in range(10, 40)]
    with ThreadPoolExecutor(2) as pool:
        written = [pool.submit(log.append, record) for record in records]
        clean_log(stale, storage, RUNS)
        for one in written:
            one.result()
    assert {record.run_id for record in records} <= set(log.read()["run_id"].to_pylist())


def test_files_whose_paths_are_encoded_are_cleaned_too(tmp_path: Path) -> None:
    place = f"{tmp_path}/lake/transcripts"
    table = pa.table({"recording_id": ["r"], "text": [TEXT], "part": ["a b/ü"]})
    write_deltalake(place, table, partition_by=["part"])
    DeltaTable(place).create_checkpoint()
    storage = open_storage(Lake.model_validate({"uri": f"{tmp_path}/lake"}), "transcripts")
    schema = pa.schema([field for field in TRANSCRIPTS if field.name in table.column_names])
    assert clean_log(DeltaTable(place), storage, schema).left == 0
    assert find_in_logs(Lake.model_validate({"uri": f"{tmp_path}/lake"}), TEXT) == []
    assert DeltaTable(place).to_pyarrow_table()["text"].to_pylist() == [TEXT]


def test_row_counts_and_the_values_of_columns_that_may_be_there_stay(lake: Lake) -> None:
    fill_log(lake)
    storage = open_storage(lake, "transcripts")
    assert clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS).left == 0
    Path(f"{storage.uri}/_delta_log/_last_checkpoint").unlink()  # a reader that looks for itself
    delta = DeltaTable(storage.uri)
    [file] = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    assert (file["num_records"], file["min.recording_id"], file["max.recording_id"]) == (3, "a", "c")
    assert [name for name in file if name.startswith(("min.", "max."))] == [
        f"{kind}.{name}" for kind in ("min", "max") for name in ("recording_id", "status", "run_id", "attempt")
    ]
    commits = [path.read_text().splitlines() for path in Path(storage.uri).glob("_delta_log/*.json")]
    assert sum("remove" in json.loads(line) for lines in commits for line in lines) == 3  # what else a commit says stays
    assert clean_log(delta, storage, TRANSCRIPTS) == LogCleaning()
    assert DeltaTable(storage.uri).version() == delta.version()


def test_a_run_and_a_reader_at_work_go_on(lake: Lake) -> None:
    fill_log(lake)
    run, opened = TranscriptTable(lake), open_lake(str(lake.uri))
    run.committed("3f0c9a12b7de")
    staged = write_staged(make_rows(["c", "d"]), lake)
    storage = open_storage(lake, "transcripts")
    assert clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS).cleaned == 2
    result = run.commit(staged)
    assert (result.rows, result.already_there) == (2, 0)  # "c" was handed out as done; what is in the log since is not new
    assert opened.count_rows() == 3
    assert run.commit(write_staged(make_rows(["d"]), lake)).already_there == 1


def test_a_log_that_was_clean_is_read_only_where_it_is_new(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_log(lake)
    storage, read, real = open_storage(lake, "transcripts"), list[str](), delta_log._read_files
    monkeypatch.setattr(delta_log, "_read_files", lambda storage, path: read.append(path) or real(storage, path))
    clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS)
    read.clear()
    assert clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS) == LogCleaning()
    assert read == []
    write(lake, make_row("d"))
    clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS)
    assert read == [f"_delta_log/{DeltaTable(storage.uri).version():020}.json"]


def test_a_version_that_a_listing_left_out_is_read_by_the_next_cleaning(lake: Lake) -> None:
    """A folder is listed in no order, while others write: it may show a version and not the one before."""
    fill_log(lake)
    storage = open_storage(lake, "transcripts")
    clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS)
    for recording_id in "de":
        write(lake, make_row(recording_id))
    newest = DeltaTable(storage.uri).version()
    missed = Path(f"{storage.uri}/_delta_log/{newest - 1:020}.json")
    lines = [json.loads(line) for line in missed.read_text().splitlines()]
    missed.rename(missed.with_suffix(".hidden"))
    delta_log._find_values(storage, str(DeltaTable(storage.uri, newest - 2).metadata().id))
    [add] = [line["add"] for line in lines if "add" in line]
    add["stats"] = json.dumps({"numRecords": 1, "minValues": {"text": TEXT}, "maxValues": {"text": TEXT}})
    missed.write_text("\n".join(map(json.dumps, lines)))
    assert clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS) == LogCleaning(cleaned=1)
    assert find_in_logs(lake, TEXT) == []


def test_a_checkpoint_that_is_written_anew_with_values_is_cleaned_again(lake: Lake) -> None:
    fill_log(lake)
    storage = open_storage(lake, "transcripts")
    [checkpoint] = Path(storage.uri).glob("_delta_log/*.checkpoint.parquet")
    before = checkpoint.read_bytes()
    for _ in range(2):  # the second finds the new checkpoint clean
        clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS)
    [newer] = Path(storage.uri).glob("_delta_log/*.checkpoint.parquet")
    newer.write_bytes(before)
    write(lake, make_row("d"))
    assert find_in_logs(lake, TEXT)
    assert clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS) == LogCleaning(cleaned=1)
    assert find_in_logs(lake, TEXT) == []


def test_a_file_that_another_writer_removes_meanwhile_does_not_come_back(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_log(lake)
    write(lake, make_row("d"))
    storage = open_storage(lake, "transcripts")
    real, calls = DeltaTable.create_write_transaction, []

    def be_late(delta: DeltaTable, *arguments: Any, **options: Any) -> None:
        if not calls:
            DeltaTable(storage.uri).optimize.compact()
        calls.append(delta.version())
        real(delta, *arguments, **options)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", be_late)
    assert clean_log(DeltaTable(storage.uri), storage, TRANSCRIPTS).left == 0
    assert len(calls) >= 1
    assert read_ids(lake) == ["a", "b", "c", "d"]


def test_what_could_not_be_cleaned_is_said_with_what_to_do(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_log(lake)
    with monkeypatch.context() as patch:
        patch.setattr(delta_log, "_clean_file", lambda *arguments: None)  # as if a writer had put it back
        receipt = forget(lake, Subjects(recordings=("a",)))
    assert (receipt.log_files, receipt.log_files_left > 0) == (0, True)
    console = Console(width=200, record=True)
    show_receipt(receipt, Plan((), 0, Subjects(), Subjects()), console, dry_run=False)
    told = console.export_text()
    assert f"log files not cleaned: {receipt.log_files_left}" in told
    assert "when none is at work, run the same command again" in told
    assert forget(lake, Subjects(recordings=("a",))).log_files_left == 0
    assert find_in_logs(lake, TEXT, "gs://archive/") == []
