"""What an erasure does in a folder, and what it costs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dictalake.lake import erasers
from dictalake.lake.findings_schema import FINDINGS
from dictalake.lake.row_tables import FINDING_ROWS
from dictalake.lake.staged_files import write_staged
from dictalake.lake.storage import Storage
from dictalake.lake.tombstones import ErasedSubjects
from tests.extracted_lake import add_extractions, fill_lake, make_extraction


def test_files_that_compaction_left_behind_cost_an_erasure_no_look_at_all_transcripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, rows = fill_lake(tmp_path / "lake", 3), [make_extraction(f"r{number}") for number in range(3)]
    for row in [*rows, make_extraction("gone")]:  # no version names these files
        write_staged(pa.Table.from_pylist([row], schema=FINDINGS), lake, of=FINDING_ROWS)
    add_extractions(lake, *rows)
    looked, look = list[set[str]](), erasers.find_recordings

    def count(transcripts: Storage, recording_ids: pa.Array) -> pa.Array:
        looked.append(set(recording_ids.to_pylist()))
        return look(transcripts, recording_ids)

    monkeypatch.setattr(erasers, "find_recordings", count)
    assert erasers.sweep_findings(lake, ErasedSubjects())["files_deleted"] == 1
    assert looked == [{"r0", "r1", "r2"}, {"gone"}]
    assert len(list((tmp_path / "lake" / "findings").rglob("part-*.parquet"))) == 4
