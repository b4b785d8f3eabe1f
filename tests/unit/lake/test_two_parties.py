"""Two parties at one lake, the second at the worst moment of the first: between its look at the table and what it does then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError

from dictalake.config.sections import Lake
from dictalake.lake import erasers, unreferenced_files
from dictalake.lake.claims import LeaseStore, make_lease
from dictalake.lake.erase import Subjects, forget, sweep
from dictalake.lake.maintenance import compact
from dictalake.lake.manifests import Manifests
from dictalake.lake.query import open_lake
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import PARTITIONS, TRANSCRIPTS, make_transcripts
from dictalake.lake.staged_files import StagedFile, write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.lake.tombstones import Erasures, Tombstone, hash_subject
from dictalake.records import Recording
from dictalake.workflow import columns
from tests.lake_rows import FINGERPRINT, make_row, make_rows

OTHER = "000000000000"
URI = "gs://archive/a.wav"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.model_validate({"uri": str(tmp_path / "lake")})
    RunLog(lake)  # an erasure also looks at the run records
    TranscriptTable(lake).commit(write_staged(make_rows(["x"]), lake))
    return lake


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dictalake.retries.pause", lambda _: None)


class OvertakenBy(TranscriptTable):
    """A writer during whose first commit, after its look at the table, something else happens to the lake."""

    happens: Callable[[], object] | None = None
    then_fails = False

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError | None:
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
            if self.then_fails:
                raise OSError("503")
        return super()._try_commit(files)


def start(lake: Lake, happens: Callable[[], object], *, then_fails: bool = False) -> OvertakenBy:
    """A run that has looked at the table."""
    table = OvertakenBy(lake)
    table.committed(FINGERPRINT)
    table.happens, table.then_fails = happens, then_fails
    return table


def write_manifest(lake: Lake, run_id: str = "r1") -> None:
    block = columns.recordings_to_table([Recording("a", URI, "1", 10)])
    list(Manifests(lake).write(run_id, [block], block.schema))


def read_ids(lake: Lake) -> list[str]:
    """Of every row that readers see; fails if the table names a file that is gone."""
    return sorted(open_lake(str(lake.uri)).to_table(columns=["recording_id"])["recording_id"].to_pylist())


def test_an_erasure_of_what_has_no_row_yet_is_seen_by_the_run_that_is_about_to_commit_it(lake: Lake) -> None:
    """The mark in the log is the only commit of such an erasure, and it deletes the file that the run has staged."""
    write_manifest(lake)
    run = start(lake, lambda: forget(lake, Subjects(uris=(URI,))))
    result = run.commit([*write_staged(make_rows(["a"]), lake), *write_staged(make_rows(["c"]), lake)])
    assert (result.rows, result.erased) == (1, 1)
    assert read_ids(lake) == ["c", "x"]


def test_a_sweep_is_seen_by_the_run_that_is_about_to_commit_what_it_deletes(lake: Lake) -> None:
    def sweep_after_tombstones() -> None:
        Erasures(lake).add("receipt", [Tombstone("uri", hash_subject("uri", URI))])
        sweep(lake)

    run = start(lake, sweep_after_tombstones)
    result = run.commit([*write_staged(make_rows(["a"]), lake), *write_staged(make_rows(["c"]), lake)])
    assert (result.rows, result.erased) == (1, 1)
    assert read_ids(lake) == ["c", "x"]


@pytest.mark.parametrize("is_deleted", [True, False])
def test_an_erasure_during_a_commit_whose_storage_fails_is_obeyed_by_the_next_try(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    if not is_deleted:
        monkeypatch.setattr(erasers, "delete_forbidden_files", lambda *_: 0)
    run = start(lake, lambda: forget(lake, Subjects(uris=(URI,)), force=True), then_fails=True)
    result = run.commit([*write_staged(make_rows(["a"]), lake), *write_staged(make_rows(["c"]), lake)])
    assert (result.rows, result.erased, result.storage_retries) == (1, 1, 1)
    assert read_ids(lake) == ["c", "x"]


def test_what_another_committed_before_the_look_at_another_model_is_not_forgotten(lake: Lake) -> None:
    run, other = TranscriptTable(lake), TranscriptTable(lake)
    run.committed(FINGERPRINT)
    other.commit(write_staged(make_rows(["a"]), lake))
    run.committed(OTHER)
    result = run.commit(write_staged(make_rows(["a", "b"]), lake))
    assert (result.rows, result.already_there) == (1, 1)


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    real, failures = getattr(owner, name), [OSError("503")]

    def fail(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(owner, name, fail)


def test_what_a_look_failed_to_read_is_read_by_the_next(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = TranscriptTable(lake), TranscriptTable(lake)
    run.committed(FINGERPRINT)
    other.commit(write_staged(make_rows(["a"]), lake))
    fail_once(monkeypatch, TranscriptTable, "_read_keys")
    result = run.commit(write_staged(make_rows(["a", "b"]), lake))
    assert (result.rows, result.already_there, result.storage_retries) == (1, 1, 1)


@pytest.mark.parametrize("what", ["keys", "erasures"])
def test_a_look_at_the_whole_table_that_fails_halfway_is_made_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run, other = TranscriptTable(lake), TranscriptTable(lake)
    run.committed(FINGERPRINT)
    other.commit(write_staged(make_rows(["a"]), lake))
    staged = write_staged(make_rows(["a", "b"]), lake)
    clean_up(lake)
    fail_once(monkeypatch, *((TranscriptTable, "_read_keys") if what == "keys" else (run._erasures, "read")))
    result = run.commit(staged)
    assert (result.rows, result.already_there, result.storage_retries) == (1, 1, 1)


def clean_up(lake: Lake) -> None:
    delta = DeltaTable(f"{lake.uri}/transcripts")
    delta.create_checkpoint()
    for version in range(delta.version() + 1):
        Path(f"{delta.table_uri.removeprefix('file://')}/_delta_log/{version:020}.json").unlink(missing_ok=True)


def test_a_commit_of_a_run_that_slept_until_the_log_was_cleaned_up_is_made_again(lake: Lake) -> None:
    def go_on_without_it() -> None:
        for recording_id in "ab":
            TranscriptTable(lake).commit(write_staged(make_rows([recording_id]), lake))
        clean_up(lake)

    run = start(lake, go_on_without_it)
    result = run.commit(write_staged(make_rows(["a", "c"]), lake))
    assert (result.rows, result.already_there) == (1, 1)
    assert read_ids(lake) == ["a", "b", "c", "x"]


def test_a_commit_beside_which_a_checkpoint_was_written_is_not_made_again(lake: Lake) -> None:
    run = start(lake, lambda: None)
    run._log.is_overtaken = lambda: True  # type: ignore[method-assign]
    result = run.commit(write_staged(make_rows(["a"]), lake))
    assert (result.rows, result.already_there, result.version) == (1, 0, 2)


def test_writers_that_take_turns_count_one_application_transaction(lake: Lake) -> None:
    writers = [TranscriptTable(lake), TranscriptTable(lake)]
    for number in range(6):
        writers[number % 2].commit(write_staged(make_rows([f"{number}"]), lake))
        last = DeltaTable(writers[0].uri).transaction_version(FINGERPRINT)
        assert last == number + 1  # the fixture's commit had 0


def test_a_writer_that_builds_on_an_older_version_is_refused_after_a_commit(lake: Lake) -> None:
    """As dictalake 0.1 does, by delta-rs, which would otherwise append to whatever came since."""
    table = TranscriptTable(lake)
    old = DeltaTable(table.uri)
    table.commit(write_staged(make_rows(["a"]), lake))
    with pytest.raises(CommitFailedError):
        commit_by_delta_rs(old, FINGERPRINT, 1)


@pytest.mark.parametrize("fingerprint", [FINGERPRINT, OTHER])
def test_a_writer_that_builds_on_an_older_version_is_refused_after_an_erasure(lake: Lake, fingerprint: str) -> None:
    old = DeltaTable(TranscriptTable(lake).uri)
    store = LeaseStore(lake)
    with store.hold(make_lease("r1", "backfill", OTHER), lambda lease: lease):  # of a model without a row yet
        forget(lake, Subjects(uris=(URI,)), force=True)
    with pytest.raises(CommitFailedError):
        commit_by_delta_rs(old, fingerprint, 1 if fingerprint == FINGERPRINT else 0)


def commit_by_delta_rs(delta: DeltaTable, fingerprint: str, version: int) -> None:
    properties = CommitProperties(app_transactions=[Transaction(fingerprint, version)])
    delta.create_write_transaction(
        [], mode="append", schema=TRANSCRIPTS, partition_by=list(PARTITIONS), commit_properties=properties
    )


def test_a_row_that_is_committed_while_an_erasure_sweeps_is_removed_too(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = erasers.delete_forbidden_files

    def commit_meanwhile(*arguments: Any) -> int:
        deleted = real(*arguments)
        if arguments[0].uri.endswith("transcripts"):
            blind = TranscriptTable(lake)
            blind.committed(FINGERPRINT)
            blind._forbidden = type(blind._forbidden)()
            blind.commit(write_staged(make_rows(["a"]), lake))
        return deleted

    monkeypatch.setattr(erasers, "delete_forbidden_files", commit_meanwhile)
    forget(lake, Subjects(uris=(URI,)), force=True)
    assert read_ids(lake) == ["x"]
    files = Path(f"{lake.uri}/transcripts").glob("fingerprint=*/*/*.parquet")
    assert [row for file in files for row in pq.ParquetFile(file).read()["recording_id"].to_pylist()] == ["x"]


@pytest.mark.parametrize("kind", ["study", "patient"])
def test_another_recording_of_an_erased_person_that_a_run_has_in_work_is_kept_out(lake: Lake, kind: str) -> None:
    dicom = {"study_instance_uid": "1.2.3"} if kind == "study" else {"patient_id_hash": "f00d" * 16}
    TranscriptTable(lake).commit(write_staged(make_transcripts([make_row("a", dicom=dicom)]), lake))
    subjects = Subjects(studies=("1.2.3",)) if kind == "study" else Subjects(patients=("f00d" * 16,))
    run = start(lake, lambda: forget(lake, subjects, leave_unhashed=True))
    staged = [write_staged(make_transcripts([row]), lake)[0] for row in (make_row("b", dicom=dicom), make_row("c"))]
    result = run.commit(staged)
    assert (result.rows, result.erased) == (1, 1)
    assert run.commit(write_staged(make_transcripts([make_row("d", dicom=dicom)]), lake)).erased == 1
    assert read_ids(lake) == ["c", "x"]


def test_a_file_that_is_committed_while_an_erasure_looks_at_it_is_not_deleted_under_readers(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    (staged,) = write_staged(make_rows(["a"]), lake)
    real, table = unreferenced_files._is_forbidden, TranscriptTable(lake)
    table.committed(FINGERPRINT)
    seen: list[bool] = []

    def commit_first(*arguments: Any) -> bool:
        if not seen:
            seen.append(True)
            table.commit([staged])
        return real(*arguments)

    monkeypatch.setattr(unreferenced_files, "_is_forbidden", commit_first)
    Erasures(lake).add("receipt", [Tombstone("uri", hash_subject("uri", URI))])
    forbidden = Erasures(lake).read()
    assert unreferenced_files.delete_forbidden_files(table._storage, TRANSCRIPTS, ["source", "dicom"], forbidden) == 0
    assert seen
    assert read_ids(lake) == ["a", "x"]


def test_another_version_of_an_erased_object_is_found_in_another_file(lake: Lake) -> None:
    for number in "12":
        row = make_row(f"a{number}", source={"uri": URI, "version": number})
        TranscriptTable(lake).commit(write_staged(make_transcripts([row]), lake))
    assert forget(lake, Subjects(recordings=("a1",))).recordings == 2
    assert read_ids(lake) == ["x"]


def test_the_manifest_of_a_run_at_work_outlives_a_compaction(lake: Lake) -> None:
    for run_id in ("alive", "dead"):
        write_manifest(lake, run_id)
        then = time.time() - 8 * 86_400
        os.utime(f"{lake.uri}/manifests/{run_id}/part-00000.parquet", (then, then))
    with LeaseStore(lake).hold(make_lease("alive", "backfill", FINGERPRINT), lambda lease: lease):
        compact(lake)
    assert Manifests(lake).paths() == ["alive/part-00000.parquet"]
