"""DuckDB reads the lake in three lines, and only the files and columns that the question needs.

The proof is destruction: what must not be read is removed or overwritten first.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.query import VIEWS, connect, open_lake
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.superseded import RecordingVersions
from dictalake.lake.table import TranscriptTable
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row, make_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def commit(lake: Lake, *rows: dict[str, object]) -> list[StagedFile]:
    staged = write_staged(make_transcripts(list(rows)), lake)
    TranscriptTable(lake).commit(staged)
    return staged


def remove(lake: Lake, staged: StagedFile) -> None:
    Path(f"{lake.uri}/transcripts/{staged.path}").unlink()


def ask(question: str, transcripts: ds.Dataset) -> list[tuple[object, ...]]:
    """DuckDB finds the dataset by the name of the variable that holds it."""
    answer = duckdb.sql(question)
    assert answer is not None
    return answer.fetchall()


def test_three_lines_of_duckdb(lake: Lake) -> None:
    commit(lake, make_row("a"), make_row("b", recorded_month="unknown"), make_failed_row("c"))
    transcripts = open_lake(str(lake.uri))
    answer = ask("SELECT status, count(*), min(words[1].word) FROM transcripts GROUP BY status ORDER BY status", transcripts)
    assert answer == [("failed", 1, None), ("ok", 2, "no")]
    assert transcripts.schema.names[-2:] == ["fingerprint", "recorded_month"]


def test_uncommitted_files_are_not_read(lake: Lake) -> None:
    commit(lake, make_row("a"))
    write_staged(make_rows(["b"]), lake)
    transcripts = open_lake(str(lake.uri))
    assert ask("SELECT recording_id FROM transcripts", transcripts) == [("a",)]
    assert transcripts.count_rows() == 1


def test_files_of_other_partitions_are_not_opened(lake: Lake) -> None:
    march, april = commit(lake, make_row("a"), make_row("b", recorded_month="2026-04"))
    (other,) = commit(lake, make_row("c", fingerprint="000000000000"))
    remove(lake, april)
    remove(lake, other)
    transcripts = open_lake(str(lake.uri))
    pruned = f"fingerprint = '{FINGERPRINT}' AND recorded_month = '2026-03'"
    assert ask(f"SELECT recording_id FROM transcripts WHERE {pruned}", transcripts) == [("a",)]
    with pytest.raises(duckdb.InvalidInputException, match="No such file"):
        ask("SELECT recording_id FROM transcripts", transcripts)
    assert len(list(transcripts.get_fragments())) == 3
    assert march.rows == 1


def test_files_that_their_statistics_rule_out_are_not_opened(lake: Lake) -> None:
    (good,) = commit(lake, make_row("a"))
    commit(lake, make_failed_row("b"))
    remove(lake, good)
    transcripts = open_lake(str(lake.uri))
    answer = ask("SELECT recording_id, error.reason FROM transcripts WHERE status = 'failed'", transcripts)
    assert answer == [("b", "not_audio")]
    assert len(list(transcripts.get_fragments())) == 2


def test_columns_that_are_not_asked_for_are_not_read(lake: Lake) -> None:
    (staged,) = commit(lake, make_row("a"))
    path = Path(f"{lake.uri}/transcripts/{staged.path}")
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "text")
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    transcripts = open_lake(str(lake.uri))
    assert ask("SELECT recording_id, text_raw FROM transcripts", transcripts) == [("a", "no acute fracture {period}")]
    with pytest.raises(OSError, match="Couldn't deserialize thrift"):
        transcripts.to_table(columns=["text"])


def test_a_place_without_a_lake_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^there is no dictalake table at .*: check lake\.uri, or run a backfill first$"):
        open_lake(str(tmp_path))


def test_no_footer_of_a_file_stays_in_memory_after_a_question(lake: Lake) -> None:
    commit(lake, make_row("a"))
    files = open_lake(str(lake.uri))
    database = duckdb.connect()
    database.register("history", files)
    assert database.execute("SELECT count(*) FROM history WHERE status = 'ok'").fetchall() == [(1,)]
    assert files.to_table(columns=["text"]).num_rows == files.count_rows() == 1
    [fragment] = files.get_fragments()
    Path(f"{lake.uri}/transcripts/{fragment.path}").unlink()
    with pytest.raises(FileNotFoundError):  # a fragment that holds its footer would not look for the file
        fragment.ensure_complete_metadata()


def test_a_scan_takes_no_footer_from_another_that_reads_the_same_files_at_the_time(lake: Lake) -> None:
    """Arrow frees the footer of a fragment at the end of a scan, whoever reads it: the process would crash."""
    commit(lake, make_row("a"))
    files = open_lake(str(lake.uri))
    [fragment] = files.get_fragments()
    fragment.ensure_complete_metadata()  # as the other scan does
    assert files.to_table(columns=["text"]).num_rows == 1
    Path(f"{lake.uri}/transcripts/{fragment.path}").unlink()
    fragment.ensure_complete_metadata()  # it is still there


def test_each_view_can_be_opened_alone(lake: Lake) -> None:
    commit(lake, make_row("a"))
    for name in VIEWS:
        with connect(str(lake.uri), names=(name,)) as database:
            database.sql(f"SELECT * FROM {name}").fetchall()


def test_only_what_the_named_views_read_is_opened(lake: Lake) -> None:
    commit(lake, make_row("a"))
    with connect(str(lake.uri), names=("history",)) as database:
        there = {name for (name,) in database.sql("SELECT table_name FROM information_schema.tables").fetchall()}
    assert {"history", "transcript_rows", "superseded", "promotions"} <= there
    assert there.isdisjoint({"transcripts", "findings", "finding_rows", "correction_records", "run_records"})


def test_no_file_is_read_before_the_question(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(lake, make_row("a"))
    read = list[object]()
    stream = RecordingVersions.__arrow_c_stream__
    monkeypatch.setattr(
        RecordingVersions, "__arrow_c_stream__", lambda self, schema=None: read.append(1) or stream(self, schema)
    )
    with connect(str(lake.uri)) as database:
        assert not read
        assert database.sql("SELECT count(*) FROM superseded").fetchall() == [(0,)]
    assert read
