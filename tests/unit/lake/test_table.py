"""The law of the lake on a local disk: readers see whole commits, and no row is there twice, whoever writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dictalake.config.sections import Lake
from dictalake.errors import ConfigError, RunError
from dictalake.lake import tombstones
from dictalake.lake.erase import Subjects, forget
from dictalake.lake.schema import PARTITIONS, SCHEMA_VERSION, TRANSCRIPTS
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.table import CommitResult, TranscriptTable
from tests.lake_rows import FINGERPRINT, done_ids, make_rows

OTHER = "000000000000"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.model_validate({"uri": str(tmp_path / "lake")})


def test_a_new_table_is_partitioned_documented_and_readable_by_old_engines(lake: Lake) -> None:
    delta = DeltaTable(TranscriptTable(lake).uri)
    assert delta.metadata().partition_columns == list(PARTITIONS)
    assert pa.schema(delta.schema().to_arrow()).equals(TRANSCRIPTS, check_metadata=True)
    assert delta.protocol().min_reader_version == 1


def test_two_that_make_the_table_at_once_share_it(lake: Lake) -> None:
    first, second = TranscriptTable(lake), TranscriptTable(lake)
    first.commit(write_staged(make_rows(["a"]), lake))
    second.commit(write_staged(make_rows(["b"]), lake))
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0)]


def test_staged_rows_are_invisible_until_they_are_committed(lake: Lake) -> None:
    table = TranscriptTable(lake)
    staged = write_staged(make_rows(["a", "b"]), lake)
    assert done_ids(table) == []
    assert table.commit(staged) == CommitResult(version=1, files=1, rows=2, already_there=0)
    assert done_ids(table) == [("a", 0), ("b", 0)]


def test_done_gives_status_and_attempt_of_one_fingerprint(lake: Lake) -> None:
    table = TranscriptTable(lake)
    table.commit(write_staged(make_rows(["a"], status="failed", attempt=1), lake))
    table.commit(write_staged(make_rows(["b"], fingerprint=OTHER), lake))
    plain = {"archive_id": None, "archive_rows": None, "error": None}
    failed = [{"recording_id": "a", "attempt": 1, "status": "failed", **plain}]
    assert table.committed(FINGERPRINT).to_table().to_pylist() == failed
    other = TranscriptTable(lake).committed(OTHER).to_table().to_pylist()
    assert other == [{"recording_id": "b", "attempt": 0, "status": "ok", **plain}]


def test_done_reads_no_file_of_another_fingerprint(lake: Lake) -> None:
    table = TranscriptTable(lake)
    (staged,) = write_staged(make_rows(["b"], fingerprint=OTHER), lake)
    table.commit([staged, *write_staged(make_rows(["a"]), lake)])
    Path(f"{table.uri}/{staged.path}").unlink()
    assert done_ids(TranscriptTable(lake)) == [("a", 0)]


def test_committing_the_same_files_again_changes_nothing(lake: Lake) -> None:
    table = TranscriptTable(lake)
    staged = write_staged(make_rows(["a", "b"]), lake)
    table.commit(staged)
    assert table.commit(staged) == CommitResult(version=1, files=0, rows=0, already_there=2)
    assert TranscriptTable(lake).commit(staged) == CommitResult(version=1, files=0, rows=0, already_there=2)
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0)]


def test_rows_that_are_there_already_are_left_out_of_a_file(lake: Lake) -> None:
    table = TranscriptTable(lake)
    table.commit(write_staged(make_rows(["b"]), lake))
    result = table.commit(write_staged(make_rows(["a", "b", "c"]), lake))
    assert result == CommitResult(version=2, files=1, rows=2, already_there=1)
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("c", 0)]


def test_a_block_that_was_written_twice_counts_once(lake: Lake) -> None:
    twice = [*write_staged(make_rows(["a", "b"]), lake), *write_staged(make_rows(["b", "a"]), lake)]
    assert TranscriptTable(lake).commit(twice) == CommitResult(version=1, files=1, rows=2, already_there=2)


def test_a_retry_is_another_row_and_another_model_too(lake: Lake) -> None:
    table = TranscriptTable(lake)
    table.commit(write_staged(make_rows(["a"]), lake))
    assert table.commit(write_staged(make_rows(["a"], attempt=1), lake)).rows == 1
    assert table.commit(write_staged(make_rows(["a"], fingerprint=OTHER), lake)).rows == 1
    assert done_ids(table) == [("a", 0), ("a", 1)]
    assert done_ids(table, OTHER) == [("a", 0)]


def test_done_sees_what_others_committed_since(lake: Lake) -> None:
    reader, writer = TranscriptTable(lake), TranscriptTable(lake)
    assert done_ids(reader) == []
    writer.commit(write_staged(make_rows(["a"]), lake))
    assert done_ids(reader) == [("a", 0)]


class Overtaken(TranscriptTable):
    """A writer that is overtaken between its look at the table and its commit, the worst moment there is."""

    overtaker: TranscriptTable
    overtaking: Sequence[StagedFile] = ()

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError | None:
        overtaking, self.overtaking = self.overtaking, ()
        if overtaking:
            self.overtaker.commit(overtaking)
        return super()._try_commit(files)


def test_a_writer_that_is_overtaken_looks_again(lake: Lake) -> None:
    table = Overtaken(lake)
    table.overtaker, table.overtaking = TranscriptTable(lake), write_staged(make_rows(["b", "x"]), lake)
    result = table.commit(write_staged(make_rows(["a", "b"]), lake))
    assert result == CommitResult(version=2, files=1, rows=1, already_there=1)
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("x", 0)]


def test_a_writer_of_another_fingerprint_is_not_in_the_way(lake: Lake) -> None:
    table = Overtaken(lake)
    table.overtaker, table.overtaking = TranscriptTable(lake), write_staged(make_rows(["a"], fingerprint=OTHER), lake)
    assert table.commit(write_staged(make_rows(["a"]), lake)).rows == 1
    assert done_ids(table, OTHER) == [("a", 0)]


class AnswerLost(TranscriptTable):
    """A writer whose first commit succeeds, but appears to be refused."""

    lost = False

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError | None:
        if self.lost:
            return super()._try_commit(files)
        self.lost = True
        TranscriptTable(Lake.model_validate({"uri": str(Path(self.uri).parent)})).commit(files)
        return CommitFailedError("Transaction failed")


def test_a_commit_whose_answer_is_lost_is_found_to_be_there(lake: Lake) -> None:
    table = AnswerLost(lake)
    assert table.commit(write_staged(make_rows(["a"]), lake)) == CommitResult(version=1, files=0, rows=0, already_there=1)
    assert done_ids(TranscriptTable(lake)) == [("a", 0)]


class OvertakenBy(TranscriptTable):
    """A writer during whose first commit, after its look at the table, something else happens to the lake."""

    happens: Callable[[], object] | None = None

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError | None:
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        return super()._try_commit(files)


def erase_a(lake: Lake) -> None:
    forget(lake, Subjects(uris=("gs://archive/a.wav",)), force=True)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before new tries, none of which is waited for."""
    pauses: list[float] = []
    monkeypatch.setattr("dictalake.retries.pause", pauses.append)
    return pauses


def test_an_erasure_between_look_and_commit_keeps_the_deleted_file_out(lake: Lake, no_pauses: list[float]) -> None:
    table = OvertakenBy(lake)
    table.commit(write_staged(make_rows(["x"]), lake))
    table.committed(FINGERPRINT)
    staged = [*write_staged(make_rows(["a", "b"]), lake), *write_staged(make_rows(["c"]), lake)]
    table.happens = lambda: erase_a(lake)
    result = table.commit(staged)
    assert (result.rows, result.erased) == (1, 2)  # the erasure deleted the file with "a", so "b" is to be done again
    assert done_ids(TranscriptTable(lake)) == [("c", 0), ("x", 0)]
    assert len(no_pauses) == 2  # the refusal, and the file that was gone


def test_an_erasure_between_look_and_commit_that_cannot_delete_the_file_is_still_obeyed(
    lake: Lake, no_pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on object storage, where a listing may be older than the file: only the mark in the log warns the writer."""
    monkeypatch.setattr("dictalake.lake.erasers.delete_forbidden_files", lambda *_: 0)
    table = OvertakenBy(lake)
    table.commit(write_staged(make_rows(["x"]), lake))
    table.committed(FINGERPRINT)
    table.happens = lambda: erase_a(lake)
    result = table.commit(write_staged(make_rows(["a", "b"]), lake))
    assert (result.rows, result.erased) == (1, 1)
    assert done_ids(TranscriptTable(lake)) == [("b", 0), ("x", 0)]


def test_rows_whose_file_was_compacted_and_vacuumed_between_look_and_commit_are_not_committed_again(
    lake: Lake, no_pauses: list[float]
) -> None:
    table, other = OvertakenBy(lake), TranscriptTable(lake)
    table.committed(FINGERPRINT)

    def commit_compact_and_vacuum() -> None:
        for recording_id in "ab":
            other.commit(write_staged(make_rows([recording_id]), lake))
        delta = DeltaTable(other.uri)
        delta.optimize.compact()
        assert len(delta.vacuum(0, dry_run=False, enforce_retention_duration=False)) == 2

    table.happens = commit_compact_and_vacuum
    (staged,) = write_staged(make_rows(["a", "c"]), lake)
    result = table.commit([staged])
    assert (result.rows, result.already_there) == (1, 1)
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("c", 0)]


class StorageFails(TranscriptTable):
    """A writer whose storage fails a number of times at its commits."""

    failures = 0

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError | None:
        if self.failures:
            self.failures -= 1
            raise OSError("503")
        return super()._try_commit(files)


def test_a_storage_that_fails_is_tried_again_after_longer_and_longer_pauses(lake: Lake, no_pauses: list[float]) -> None:
    table = StorageFails(lake)
    table.failures = 7
    result = table.commit(write_staged(make_rows(["a"]), lake))
    assert (result.rows, result.storage_retries) == (1, 7)
    longest_s = [1, 2, 4, 8, 15, 15, 15]
    assert all(most / 2 <= pause <= most for pause, most in zip(no_pauses, longest_s, strict=True))


def test_a_storage_that_fails_eight_times_ends_the_commit(lake: Lake, no_pauses: list[float]) -> None:
    table = StorageFails(lake)
    table.failures = 8
    with pytest.raises(RunError, match=r"^cannot commit to the table at .*: 503; run the same command again to resume$"):
        table.commit(write_staged(make_rows(["a"]), lake))
    assert (len(no_pauses), done_ids(table)) == (7, [])


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: Exception) -> None:
    real, failed = getattr(owner, name), list[int]()

    def fail_then_work(*arguments: Any, **options: Any) -> Any:
        if not failed:
            failed.append(1)
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, fail_then_work)


@pytest.mark.parametrize("error", [OSError("503"), PermissionError("no"), DeltaError("Generic S3 error")], ids=repr)
@pytest.mark.parametrize(("owner", "name"), [(tombstones, "read_parquet"), (DeltaTable, "__init__")])
def test_a_storage_that_fails_while_a_commit_looks_around_is_tried_again(
    owner: object, name: str, error: Exception, lake: Lake, no_pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first commit opens the table anew, and reads what was erased."""
    table, staged = TranscriptTable(lake), write_staged(make_rows(["a"]), lake)
    fail_once(monkeypatch, owner, name, error)
    result = table.commit(staged)
    assert (result.rows, result.storage_retries, len(no_pauses)) == (1, 1, 1)
    assert done_ids(TranscriptTable(lake)) == [("a", 0)]


commits = st.lists(
    st.tuples(
        st.integers(0, 2),  # which writer
        st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), min_size=1, max_size=3),  # files of rows
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(commits)
def test_any_commits_by_three_writers_leave_each_recording_once(sequence: list[tuple[int, list[list[str]]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.model_validate({"uri": folder})
        writers = [TranscriptTable(lake) for _ in range(3)]
        committed = 0
        for writer, files in sequence:
            staged = [file for ids in files for file in write_staged(make_rows(ids), lake)]
            committed += writers[writer].commit(staged).rows
        expected = sorted({(recording_id, 0) for _, files in sequence for ids in files for recording_id in ids})
        assert done_ids(TranscriptTable(lake)) == expected
        assert committed == len(expected)
        assert DeltaTable(writers[0].uri).count() == len(expected)


def test_a_checkpoint_of_the_log_keeps_what_is_done(lake: Lake) -> None:
    table = TranscriptTable(lake)
    table.commit(write_staged(make_rows(["a"]), lake))
    DeltaTable(table.uri).create_checkpoint()
    assert table.commit(write_staged(make_rows(["a", "b"]), lake)).rows == 1
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0)]


def test_compaction_by_others_does_not_bring_rows_back(lake: Lake) -> None:
    table = TranscriptTable(lake)
    for recording_id in "ab":
        table.commit(write_staged(make_rows([recording_id]), lake))
    DeltaTable(table.uri).optimize.compact()
    assert table.commit(write_staged(make_rows(["a", "c"]), lake)).rows == 1
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("c", 0)]


def test_a_writer_reads_only_what_came_after_its_look(lake: Lake) -> None:
    """The caller leaves out older rows: of ten million none is read again, even if others compact or erase meanwhile."""
    early, writer, other = TranscriptTable(lake), TranscriptTable(lake), TranscriptTable(lake)
    for recording_id in "ab":
        early.commit(write_staged(make_rows([recording_id]), lake))
    assert sorted(writer.committed(FINGERPRINT).to_table()["recording_id"].to_pylist()) == ["a", "b"]
    DeltaTable(writer.uri).optimize.compact()
    other.commit(write_staged(make_rows(["c"]), lake))
    assert writer.commit(write_staged(make_rows(["c", "d"]), lake)).already_there == 1
    assert sorted(writer._keys[FINGERPRINT]["recording_id"].to_pylist()) == ["c", "d"]
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("c", 0), ("d", 0)]


def test_a_writer_whose_log_was_cleaned_up_reads_everything(lake: Lake) -> None:
    writer, other = TranscriptTable(lake), TranscriptTable(lake)
    assert done_ids(writer) == []
    for recording_id in "abc":
        other.commit(write_staged(make_rows([recording_id]), lake))
    DeltaTable(writer.uri).create_checkpoint()
    for version in range(3):
        Path(f"{writer.uri}/_delta_log/{version:020}.json").unlink()
    assert writer.commit(write_staged(make_rows(["a", "d"]), lake)).already_there == 1
    assert done_ids(TranscriptTable(lake)) == [("a", 0), ("b", 0), ("c", 0), ("d", 0)]


def test_texts_and_uris_are_not_in_the_log_after_compaction(lake: Lake) -> None:
    table = TranscriptTable(lake)
    for recording_id in "ab":
        table.commit(write_staged(make_rows([recording_id]), lake))
    delta = DeltaTable(table.uri)
    delta.optimize.compact()
    delta.delete("recording_id = 'a'")
    log = "".join(path.read_text() for path in Path(table.uri).glob("_delta_log/*.json"))
    assert "OPTIMIZE" in log
    assert "fracture" not in log
    assert "gs://" not in log


def test_a_file_that_the_driver_cannot_see_is_not_committed(lake: Lake) -> None:
    table = TranscriptTable(lake)
    (staged,) = write_staged(make_rows(["a"]), lake)
    Path(f"{table.uri}/{staged.path}").unlink()
    with pytest.raises(RunError, match=r"^1 of 1 files that workers wrote are not below .* all machines share$"):
        table.commit([staged])
    assert done_ids(table) == []


def test_a_table_of_another_schema_is_refused_with_the_columns(lake: Lake) -> None:
    theirs = TRANSCRIPTS.remove(TRANSCRIPTS.get_field_index("nbest")).append(pa.field("notes", pa.string()))
    theirs = theirs.set(theirs.get_field_index("confidence"), pa.field("confidence", pa.float64()))
    DeltaTable.create(f"{lake.uri}/transcripts", theirs, partition_by=list(PARTITIONS))
    with pytest.raises(RunError) as refused:
        TranscriptTable(lake)
    assert str(refused.value).endswith(
        f"/transcripts has schema version none, this dictalake writes version {SCHEMA_VERSION}: columns missing ['nbest'], "
        "unknown ['notes'], of another type ['confidence']; use the dictalake that made the table, or give another lake.uri"
    )


def test_a_lake_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = r"^lake\.uri = .*/file: this is a file, and a lake is a folder; name a folder, new or old$"
    with pytest.raises(ConfigError, match=line):
        TranscriptTable(Lake.model_validate({"uri": str(tmp_path / "file")}))


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match=r"^cannot (make|open) the table at .*; check lake\.uri and its credentials$"):
        TranscriptTable(Lake.model_validate({"uri": str(tmp_path / "file/lake")}))
