"""A second recording of one id: it is refused by name, becomes a row of its own, and nothing is lost beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from dictalake.config.sections import Config, Lake
from dictalake.errors import IdTaken
from dictalake.lake.query import open_lake
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import DONE, TranscriptTable
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.records import Recording
from dictalake.workflow.worklist import CLAIMED, WorkList
from tests.lake_rows import FINGERPRINT, make_row


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def stage(lake: Lake, *rows: dict[str, Any]) -> list[Any]:
    return write_staged(make_transcripts(list(rows)), lake)


def read(lake: Lake) -> list[dict[str, Any]]:
    return sorted(open_lake(str(lake.uri)).to_table().to_pylist(), key=lambda row: (row["status"], row["recording_id"]))


@pytest.mark.parametrize("at_once", [True, False], ids=["in one commit", "in two"])
@pytest.mark.parametrize("by_others", [True, False], ids=["of two writers", "of one"])
def test_a_second_recording_of_one_id_becomes_a_row_that_names_both_and_the_others_are_kept(
    lake: Lake, at_once: bool, by_others: bool
) -> None:
    first, second = TranscriptTable(lake), TranscriptTable(lake)
    for table in (first, second):
        table.committed(FINGERPRINT)
    files = stage(lake, make_row("a"), make_row("b"))
    others = stage(
        lake, make_row("c"), make_row("a", archive_id="z", archive_rows=2), make_row("d", archive_id="z", archive_rows=2)
    )
    if at_once:
        result = first.commit([*files, *others])
        assert (result.rows, result.already_there, result.id_taken) == (5, 0, 1)
    else:
        assert first.commit(files).id_taken == 0
        result = (second if by_others else first).commit(others)
        assert (result.rows, result.already_there, result.id_taken) == (3, 0, 1)
    refused, *good = read(lake)
    assert [row["recording_id"] for row in good] == ["a", "b", "c", "d"]
    assert (refused["archive_id"], refused["archive_rows"], refused["text"], refused["words"]) == ("z", 2, None, None)
    assert refused["error"] == {
        "stage": "load",
        "reason": IdTaken.reason,
        "detail": "the recording_id a is taken by an object of the archive, and this is a file in the archive object z; rename "
        "one of them",
        "retryable": False,
    }
    assert refused["source"]["uri"] == "gs://archive/a.wav"
    # The same block again, as after a lost answer or a worker that died: nothing new.
    again = first.commit([*files, *others])
    assert (again.rows, again.already_there, again.id_taken) == (0, 5, 0)
    assert TranscriptTable(lake).commit([*files, *others]).rows == 0
    assert len(read(lake)) == 5


def test_a_row_that_comes_again_is_no_second_recording(lake: Lake) -> None:
    table = TranscriptTable(lake)
    rows = [make_row("a"), make_row("m", archive_id="z", archive_rows=1), make_row("z", archive_id="z", archive_rows=2)]
    files = stage(lake, *rows)
    again = stage(lake, replace_archive(rows[0], None), rows[1], replace_archive(rows[2], None))
    result = table.commit([*files, *again])
    assert (result.rows, result.already_there, result.id_taken) == (3, 3, 0)


def replace_archive(row: dict[str, Any], archive_id: str | None) -> dict[str, Any]:
    return {**row, "archive_id": archive_id}


def test_a_recording_whose_id_is_a_members_is_not_looked_for_for_ever(tmp_path: Path) -> None:
    """Its row has an id of its own: the run must end, and so must the next one."""
    found = Recording("x", "gs://a/x", "1", 1)
    work = WorkList([found, replace(found, recording_id="y")], ErasedSubjects(), Config(), tmp_path)
    rows = [make_row("x", archive_id="z", archive_rows=2), make_row("y")]
    done = pa.Table.from_pylist([{name: row.get(name) for name in DONE.names} for row in rows], schema=DONE)
    work.refresh(lambda: ds.dataset(done), lambda: ds.dataset(CLAIMED.empty_table()))
    assert work.counts.pending == 0
