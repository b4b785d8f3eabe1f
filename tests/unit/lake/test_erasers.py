"""What an erasure does in a folder, and what it costs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from dictalake.lake import erasers, gone_rows, row_removal, row_search
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.finding_rows import FindingTable
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.log_tail import LogTail
from dictalake.lake.maintenance import compact
from dictalake.lake.row_search import list_files
from dictalake.lake.row_tables import FINDING_ROWS
from dictalake.lake.schema import TRANSCRIPTS, make_transcripts
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.storage import Storage
from dictalake.lake.table import TranscriptTable
from dictalake.lake.table_log import TableLog
from dictalake.lake.tombstones import ErasedSubjects
from tests.extracted_lake import add_dictations, add_extractions, fill_lake, make_dictation, make_extraction, select


def test_files_that_compaction_left_behind_cost_an_erasure_no_look_at_all_transcripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, rows = fill_lake(tmp_path / "lake", 3), [make_extraction(f"r{number}") for number in range(3)]
    for row in [*rows, make_extraction("gone")]:  # no version names these files
        write_staged(pa.Table.from_pylist([row], schema=FINDINGS), lake, of=FINDING_ROWS)
    add_extractions(lake, *rows)
    looked, look = list[set[str]](), gone_rows.find_recordings

    def count(transcripts: Storage, recording_ids: pa.Array, months: set[str]) -> pa.Array:
        looked.append(set(recording_ids.to_pylist()))
        return look(transcripts, recording_ids, months)

    monkeypatch.setattr(gone_rows, "find_recordings", count)
    assert erasers.sweep_findings(lake, ErasedSubjects())["files_deleted"] == 1
    assert looked == [{"gone"}]
    assert len(list((tmp_path / "lake" / "findings").rglob("part-*.parquet"))) == 4


def test_a_file_that_an_extraction_is_about_to_commit_is_not_deleted_under_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked before the erasure, which finds the file, and commits when the erasure has looked what is in use."""
    lake = fill_lake(tmp_path / "lake", 3)
    (staged,) = write_staged(
        pa.Table.from_pylist([make_extraction(f"r{number}") for number in range(3)], schema=FINDINGS), lake, of=FINDING_ROWS
    )
    table, real, attempts = FindingTable(lake), FindingTable._try_commit, list[int]()
    table.committed(staged.fingerprint)

    def erase_first(self: FindingTable, files: Sequence[StagedFile]) -> CommitFailedError | None:
        attempts.append(len(files))
        if len(attempts) == 1:
            forget(lake, Subjects(uris=("gs://archive/r1.wav",)))
        return real(self, files)

    monkeypatch.setattr("dictalake.retries.pause", lambda _: None)
    monkeypatch.setattr(FindingTable, "_try_commit", erase_first)
    assert table.commit([staged]).rows == 0
    assert attempts == [1]
    assert select(lake, "SELECT count(*) FROM finding_rows") == [(0,)]


def test_rows_are_not_brought_back_by_a_removal_that_another_writer_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, real = fill_lake(tmp_path / "lake", 3), row_removal._commit

    def erase_first(*arguments: Any) -> None:
        monkeypatch.setattr(row_removal, "_commit", real)
        forget(lake, Subjects(uris=("gs://archive/r1.wav",)))
        real(*arguments)

    monkeypatch.setattr(row_removal, "_commit", erase_first)
    forget(lake, Subjects(uris=("gs://archive/r0.wav",)))
    assert select(lake, "SELECT recording_id FROM history") == [("r2",)]


def test_an_erasure_holds_nothing_for_each_file(tmp_path: Path) -> None:
    """delta-rs would hold a list of them. The files are read from the checkpoint, a few at a time."""
    lake = fill_lake(tmp_path / "lake", 1)
    table = TranscriptTable(lake)
    [staged] = write_staged(make_transcripts([make_dictation("x", "No fracture.")]), lake)
    log = LogTail(table._storage, DeltaTable(table.uri))
    for _ in range(2):
        adds = [replace(staged, path=staged.path.replace("part-", f"part-{log.version}-{n}-")).to_add() for n in range(20_000)]
        assert log.append(adds, {})
        log.advance(1)
    DeltaTable(table.uri).create_checkpoint()
    del adds
    tracemalloc.start()
    try:
        found = TableLog(table._storage, TRANSCRIPTS)
        assert sum(1 for _ in found.paths()) == 40_001
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4_000_000, "100 bytes for each file"
    assert set(found.paths()) == set(list_files(DeltaTable(table.uri)))


def test_a_recording_that_is_transcribed_and_named_during_a_sweep_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, real = fill_lake(tmp_path / "lake", 1), row_search.iter_scan
    add_extractions(lake, make_extraction("r0"))
    scans = list[str]()

    def transcribe_when_read(paths: Any, schema: pa.Schema, *arguments: Any) -> Iterator[pa.RecordBatch]:
        yield from list(real(paths, schema, *arguments))
        scans.append("transcripts" if schema == TRANSCRIPTS else "findings")
        if scans.count("transcripts") == 1 and scans[-1] == "transcripts":
            add_dictations(tmp_path / "lake", make_dictation("new", "No fracture."))
            add_extractions(lake, make_extraction("new"))

    monkeypatch.setattr(gone_rows, "iter_scan", transcribe_when_read)
    erasers.sweep_findings(lake, ErasedSubjects())
    assert "transcripts" in scans
    assert select(lake, "SELECT DISTINCT recording_id FROM finding_rows ORDER BY 1") == [("new",), ("r0",)]


def test_files_of_several_months_in_one_page_of_a_bucket_are_each_compared_with_their_own_month(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = add_dictations(
        tmp_path / "lake",
        *(make_dictation(f"r{month}", "No fracture.", recorded_month=f"2024-{month:02}") for month in (1, 2)),
    )
    for month in (1, 2):  # no version names these files
        row = make_extraction(f"r{month}", recorded_month=f"2024-{month:02}")
        write_staged(pa.Table.from_pylist([row], schema=FINDINGS), lake, of=FINDING_ROWS)
    add_extractions(lake, make_extraction("r1", recorded_month="2024-01"))
    pages = Storage.list_files
    monkeypatch.setattr(Storage, "list_files", lambda self: iter([[one for page in pages(self) for one in page]]))
    before = sorted((tmp_path / "lake" / "findings").rglob("part-*.parquet"))
    assert erasers.sweep_findings(lake, ErasedSubjects())["files_deleted"] == 0
    assert sorted((tmp_path / "lake" / "findings").rglob("part-*.parquet")) == before


def test_a_sweep_removes_a_row_whose_file_was_compacted_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, real = fill_lake(tmp_path / "lake", 1), row_removal._commit
    for one in ("r0", "gone"):
        add_extractions(lake, make_extraction(one))

    def compact_first(*arguments: Any) -> None:
        monkeypatch.setattr(row_removal, "_commit", real)
        compact(lake)
        real(*arguments)

    monkeypatch.setattr(row_removal, "_commit", compact_first)
    assert erasers.sweep_findings(lake, ErasedSubjects())["other_rows"] == 1
    assert select(lake, "SELECT DISTINCT recording_id FROM finding_rows") == [("r0",)]
