"""Workers write whole Parquet files that readers do not see yet, and describe their content exactly."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dictalake.config.sections import Lake
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import FILE_SCHEMA, STAGED, StagedFile, make_staged_table, write_staged
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row, make_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def test_one_file_per_partition_with_its_rows_in_order(lake: Lake) -> None:
    rows = [make_row("c"), make_row("a", recorded_month="unknown"), make_row("b", attempt=2), make_failed_row("d")]
    staged = write_staged(make_transcripts(rows), lake)
    assert [(f.fingerprint, f.recorded_month, f.recording_ids, f.attempts, f.statuses, f.rows) for f in staged] == [
        (FINGERPRINT, "2026-03", ("c", "b", "d"), (0, 2, 0), ("ok", "ok", "failed"), 3),
        (FINGERPRINT, "unknown", ("a",), (0,), ("ok",), 1),
    ]


def test_the_file_is_where_it_says_and_as_large_as_it_says(lake: Lake) -> None:
    (staged,) = write_staged(make_rows(["a"]), lake)
    assert staged.path.startswith(f"fingerprint={FINGERPRINT}/recorded_month=2026-03/part-")
    assert Path(f"{lake.uri}/transcripts/{staged.path}").stat().st_size == staged.size_bytes


def test_the_file_has_the_explicit_types_and_no_partition_columns(lake: Lake) -> None:
    (staged,) = write_staged(make_transcripts([make_failed_row("a")]), lake)
    file = pq.ParquetFile(f"{lake.uri}/transcripts/{staged.path}")
    assert file.schema_arrow.equals(FILE_SCHEMA)
    assert "fingerprint" not in file.schema_arrow.names
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_row_comes_back_as_it_was_written(lake: Lake) -> None:
    table = make_rows(["a"])
    (staged,) = write_staged(table, lake)
    read = pq.ParquetFile(f"{lake.uri}/transcripts/{staged.path}").read()
    assert read.to_pylist() == table.select(FILE_SCHEMA.names).to_pylist()


def test_the_same_rows_written_twice_are_two_files(lake: Lake) -> None:
    first, second = (write_staged(make_rows(["a"]), lake)[0].path for _ in range(2))
    assert first != second


def test_statistics_are_in_deltas_words(lake: Lake) -> None:
    (staged,) = write_staged(make_transcripts([make_row("b"), make_failed_row("a", attempt=1)]), lake)
    assert json.loads(staged.stats) == {
        "numRecords": 2,
        "minValues": {"recording_id": "a", "status": "failed", "run_id": "run-1", "attempt": 0},
        "maxValues": {"recording_id": "b", "status": "ok", "run_id": "run-1", "attempt": 1},
        "nullCount": {"recording_id": 0, "status": 0, "run_id": 0, "attempt": 0},
    }


def test_staged_files_travel_as_arrow_rows_and_as_pickles(lake: Lake) -> None:
    staged = write_staged(make_transcripts([make_row("a"), make_row("b", recorded_month="unknown")]), lake)
    table = make_staged_table(staged)
    assert table.schema.equals(STAGED)
    assert [StagedFile.from_row(row) for row in table.to_pylist()] == staged
    assert pickle.loads(pickle.dumps(staged)) == staged


def test_no_rows_are_no_files_and_still_a_typed_table(lake: Lake) -> None:
    assert write_staged(make_rows([]), lake) == []
    assert make_staged_table([]).schema.equals(STAGED)


def test_a_partition_value_that_could_leave_its_folder_is_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="become folder names"):
        write_staged(make_rows(["a"], recorded_month="../../etc"), lake)


def test_rows_of_another_schema_are_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="columns do not fit the schema"):
        write_staged(pa.table({"text": ["a"]}), lake)
