"""Rows are taken out of a table that asks much of a writer, so that delta-rs does it by SQL, whatever their names are."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.table import TableFeatures

from dictalake.lake.contract import without_docs
from dictalake.lake.places import PLACES
from dictalake.lake.row_removal import remove_rows
from dictalake.lake.row_search import list_files
from dictalake.lake.schema import make_transcripts
from dictalake.lake.storage import open_storage
from tests.truth_lake import ask, commit, make_lake, make_version


@pytest.mark.parametrize("name", ["it's", "a' OR recording_id <> '", 'a "b" \\ 50%27'])
def test_an_id_and_a_month_with_marks_of_sql_are_only_names(tmp_path: Path, name: str) -> None:
    lake = make_lake(tmp_path)
    commit(lake, make_version("gs://a/0", recording_id="kept"))
    storage = open_storage(lake, "transcripts")
    months = ["2026-03", "it's"]  # such a month is another writer's
    for month in months:
        ids = (name, "kept too")
        rows = make_transcripts([make_version(f"gs://a/{one}", recording_id=one, recorded_month=month) for one in ids])
        write_deltalake(storage.uri, rows.cast(without_docs(rows.schema)), mode="append")
    DeltaTable(storage.uri).alter.add_feature([TableFeatures.ChangeDataFeed], allow_protocol_versions_increase=True)
    remove_rows(storage, PLACES[0], "recording_id", [name], list_files(DeltaTable(storage.uri)), "receipt")
    left = ask(lake, "SELECT recording_id, recorded_month FROM history ORDER BY ALL")
    assert left == [("kept", "2026-03"), *(("kept too", month) for month in months)]
