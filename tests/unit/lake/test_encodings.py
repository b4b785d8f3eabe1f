"""Files are encoded as measured smallest, by both writers, and every engine reads them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dictalake.config.sections import Lake
from dictalake.lake.encodings import find_encodings
from dictalake.lake.maintenance import compact
from dictalake.lake.query import open_lake
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.staged_files import FILE_SCHEMA, write_staged
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import make_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    RunLog(lake)
    table = TranscriptTable(lake)
    for name in "ab":
        table.commit(write_staged(make_rows([f"{name}{number}" for number in range(8)]), lake))
    return lake


def read_encodings(path: Path) -> dict[str, set[str]]:
    metadata = pq.ParquetFile(path).metadata
    columns = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    return {column.path_in_schema: set(column.encodings) for column in columns}


def test_every_encoding_is_of_a_column_that_exists(lake: Lake) -> None:
    [file, _] = sorted(Path(f"{lake.uri}/transcripts").rglob("*.parquet"))
    assert find_encodings(FILE_SCHEMA).keys() <= read_encodings(file).keys()
    assert {"text", "quality.duration_s", "timings.load_ms", "sections.list.element.text"} <= find_encodings(TRANSCRIPTS).keys()


def test_new_files_and_compacted_ones_have_the_same_encodings(lake: Lake) -> None:
    before = set(Path(f"{lake.uri}/transcripts").rglob("*.parquet"))
    rows = open_lake(str(lake.uri)).to_table().sort_by("recording_id")
    compact(lake)
    [compacted] = set(Path(f"{lake.uri}/transcripts").rglob("part*.parquet")) - before
    for file in (*before, compacted):
        encodings = read_encodings(file)
        for path, encoding in find_encodings(FILE_SCHEMA).items():
            if file == compacted and "." in path:  # delta-rs cannot
                continue
            assert encoding in encodings[path], (file.name, path)
            assert "RLE_DICTIONARY" not in encodings[path], (file.name, path)
        for path in ("words.list.element.start_s", "words.list.element.confidence", "words.list.element.word"):
            assert "RLE_DICTIONARY" in encodings[path]
    assert open_lake(str(lake.uri)).to_table().sort_by("recording_id").equals(rows)


def test_texts_have_no_statistics_in_the_footer_and_keys_do(lake: Lake) -> None:
    [file, _] = sorted(Path(f"{lake.uri}/transcripts").rglob("*.parquet"))
    group = pq.ParquetFile(file).metadata.row_group(0)
    with_them = {group.column(index).path_in_schema for index in range(group.num_columns) if group.column(index).statistics}
    assert {"recording_id", "attempt"} <= with_them
    assert not with_them & {"text", "text_raw", "source.uri", "words.list.element.word"}
