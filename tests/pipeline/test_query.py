"""DuckDB reads a lake that a run wrote, in the three lines of the documentation, and only the parts that the question needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dictalake.lake.query import open_lake
from tests.pipeline.conftest import FinishedRun


@pytest.fixture
def lake(mixed_run: FinishedRun, tmp_path: Path) -> Path:
    """A copy to break: what must not be read is destroyed, that is the proof."""
    return Path(shutil.copytree(mixed_run.lake, tmp_path / "lake"))


def test_three_lines(mixed_run: FinishedRun) -> None:
    transcripts = open_lake(str(mixed_run.lake))
    question = f"SELECT status, count(*) FROM transcripts WHERE fingerprint = '{mixed_run.summary.fingerprint}' GROUP BY status"
    answer = duckdb.sql(question).fetchall()
    assert sorted(answer) == [("failed", 4), ("ok", 7)]
    assert "words" in transcripts.schema.names


def test_words_can_be_searched(mixed_run: FinishedRun) -> None:
    transcripts = open_lake(str(mixed_run.lake))
    said = transcripts.to_table(columns=["words"], filter=ds.field("fingerprint") == mixed_run.summary.fingerprint)
    wanted = sum(len(words or ()) for words in said["words"].to_pylist())
    unnested = f"SELECT unnest(words) AS word FROM transcripts WHERE fingerprint = '{mixed_run.summary.fingerprint}'"
    assert duckdb.sql(f"SELECT count(*), bool_and(word.start_s < word.end_s) FROM ({unnested})").fetchall() == [(wanted, True)]
    assert wanted > 20


def test_partitions_are_pushed_down(mixed_run: FinishedRun, lake: Path) -> None:
    for folder in lake.glob("transcripts/fingerprint=*/recorded_month=*"):
        if folder.name != "recorded_month=2025-05":
            shutil.rmtree(folder)
    transcripts = open_lake(str(lake))
    where = f"fingerprint = '{mixed_run.summary.fingerprint}' AND recorded_month = '2025-05'"
    assert duckdb.sql(f"SELECT source.container FROM transcripts WHERE {where}").fetchall() == [("flac",)]
    with pytest.raises(duckdb.Error, match="No such file"):
        duckdb.sql("SELECT source.container FROM transcripts").fetchall()
    assert transcripts.schema.names[-1] == "recorded_month"


def test_columns_are_pushed_down(mixed_run: FinishedRun, lake: Path) -> None:
    for path in lake.glob("transcripts/fingerprint=*/recorded_month=*/*.parquet"):
        overwrite_column(path, "text")
    transcripts = open_lake(str(lake))
    where = f"fingerprint = '{mixed_run.summary.fingerprint}' AND status = 'ok'"
    assert len(duckdb.sql(f"SELECT recording_id, text_raw FROM transcripts WHERE {where}").fetchall()) == 7
    with pytest.raises(OSError, match=r"thrift|Parquet|decompress"):
        transcripts.to_table(columns=["text"])


def overwrite_column(path: Path, name: str) -> None:
    """Puts garbage where a column's values are."""
    content = bytearray(path.read_bytes())
    file = pq.ParquetFile(path)
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == name)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
