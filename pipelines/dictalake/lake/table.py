"""The driver's side of the lake: what is done, and commits that no other run can slip between.

Two appends do not conflict for Delta Lake, so both would go in and a recording could be there twice. Each commit therefore
carries an application transaction named after the fingerprint: Delta Lake refuses it when another commit with that name came
since the version it was built on (protocol: "Transaction Identifiers"). A refused commit looks again at what is there, leaves
those rows out, and tries again. The same way back serves a commit whose answer was lost: its rows are found to be there.

What others committed is read from the log since the version that the run was planned on: a run holds the keys of what came
since, never of all that was ever done.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.delta import open_or_create_table
from dictalake.lake.schema import PARTITIONS, TRANSCRIPTS
from dictalake.lake.staged_files import TRANSCRIPTS_FOLDER, StagedFile, keep_rows
from dictalake.lake.storage import open_storage
from dictalake.lake.tombstones import ErasedSubjects, Erasures
from dictalake.retries import BACKOFF_S

COMMIT_PATIENCE_S = 300.0  # other writers may win that long
_LONGEST_PAUSE_S = 2.0
_MOST_CHUNKS = 256
_IO_THREADS = 32
_STORAGE_TRIES, _LONGEST_WAIT_S = 8, 15.0  # of a commit whose storage fails
ERASURE_MARK = "dictalake.erasure"  # in the commit info of a version that erases
_DONE_COLUMNS = ("recording_id", "attempt", "status", "archive_id", "archive_rows", "error")
DONE = pa.schema([pa.field(name, TRANSCRIPTS.field(name).type) for name in _DONE_COLUMNS])
_KEYS = pa.schema([DONE.field("recording_id"), DONE.field("attempt")])


@dataclass(frozen=True)
class CommitResult:
    """What a commit did: ``files`` of ``size_bytes`` and ``rows`` that readers now see, rows left out because they were
    ``already_there``, or because what they are of was ``erased`` meanwhile."""

    version: int
    files: int
    rows: int
    already_there: int
    erased: int = 0
    storage_retries: int = 0
    size_bytes: int = field(default=0, compare=False)


class TranscriptTable:
    """The Delta table of transcripts, made if it is not there. For one thread: a second writer opens its own.

    Raises ConfigError for a bad ``lake.uri`` or storage option; RunError when the table is out of reach or has another schema.
    """

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, TRANSCRIPTS_FOLDER)
        self._delta: DeltaTable = open_or_create_table(
            self._storage, TRANSCRIPTS, PARTITIONS, "dictalake: one row per recording, fingerprint and attempt"
        )
        if not self._storage.is_local:  # of many small files each is a wait for the storage
            pa.set_io_thread_count(max(pa.io_thread_count(), _IO_THREADS))
        self._erasures = Erasures(lake)
        self._forbidden = ErasedSubjects()
        self._honoured: frozenset[str] = frozenset()  # hashes that those who make the rows know of
        self._seen: dict[str, int] = {}  # fingerprint → version up to which its keys are known, or were handed out
        self._keys: dict[str, pa.Table] = {}  # fingerprint → keys (schema _KEYS) that came since they were handed out
        self._own: set[str] = set()  # files that this writer committed and has not met in the log yet

    @property
    def uri(self) -> str:
        return self._storage.uri

    @property
    def forbidden(self) -> ErasedSubjects:
        """What was erased before ``committed`` was called, or was found to be since."""
        return self._forbidden

    def read_erasures(self) -> ErasedSubjects:
        """What was erased until now. Raises RunError."""
        return self._erasures.read()

    def committed(self, fingerprint: str) -> ds.Dataset:
        """Rows committed under ``fingerprint`` by anyone, schema DONE, in no order, as a dataset that is read when it is used.

        The caller takes it upon itself to leave these rows out: ``commit`` looks only at what came after. Raises RunError.
        """
        with self._lake_errors("read"):
            self._delta.update_incremental()
            self._forbidden = self._erasures.read()
            self._honoured = self._forbidden.hashes
            self._seen[fingerprint] = self._delta.version()
            self._keys[fingerprint] = _KEYS.empty_table()
            return self._read_files(self._find_files(fingerprint), DONE)

    def commit(self, files: Sequence[StagedFile]) -> CommitResult:
        """Makes staged files visible, all at once; rows that are there already, and repeats among ``files``, are left out.

        Safe to call again with the same files, and against any number of other writers. Raises RunError when a file is not
        where it should be, the lake cannot be written, or other writers win for COMMIT_PATIENCE_S.
        """
        give_up = time.monotonic() + COMMIT_PATIENCE_S
        rows = sum(file.rows for file in files)
        erased = 0
        with self._lake_errors("commit to"):
            remaining, refusal, tries, failures = list(files), None, 0, 0
            is_present = False
            while time.monotonic() < give_up:
                try:
                    self._catch_up(sorted({file.fingerprint for file in remaining}))
                    if not is_present:
                        present = self._without_absent(remaining)
                        erased += sum(file.rows for file in remaining) - sum(file.rows for file in present)
                        remaining, is_present = present, True
                    remaining = self._without_committed(remaining)
                    # After what is committed is out: a file that the log names must not be deleted.
                    remaining, left_out = self._without_erased(remaining)
                    erased += left_out
                    refusal = self._try_commit(remaining) if remaining else None
                except OSError:  # an answer that was lost may have been a success: the next look will tell
                    failures, is_present = failures + 1, False
                    if failures >= _STORAGE_TRIES:
                        raise
                    time.sleep(random.uniform(0.5, 1) * min(_LONGEST_WAIT_S, BACKOFF_S * 2**failures))
                    continue
                if refusal is None:
                    added = sum(file.rows for file in remaining)
                    already_there = rows - added - erased
                    size_bytes = sum(file.size_bytes for file in remaining)
                    return CommitResult(
                        self._delta.version(), len(remaining), added, already_there, erased, failures, size_bytes
                    )
                # Jitter, so that writers that met once do not meet again and again.
                tries += 1
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.02 * 2 ** min(tries, 10))))
        raise RunError(
            f"commits to {self.uri} were refused {tries} times in {COMMIT_PATIENCE_S:g} s, the last with: {refusal}; "
            "if other runs write there too, raise lake.commit_every_s or let fewer write at once"
        ) from refusal

    @contextmanager
    def _lake_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot {action} the table at {self.uri}: {error}; run the same command again to go on") from error

    def _without_absent(self, files: Sequence[StagedFile]) -> list[StagedFile]:
        """A commit of a file that is not there would break the table for every reader. An erasure deletes files that hold what
        it erases, those too that are not committed yet: what else was in them is done again. Else RunError."""
        infos = self._storage.filesystem.get_file_info([file.path for file in files])
        present = [file for info, file in zip(infos, files, strict=True) if info.size == file.size_bytes]
        absent = len(files) - len(present)
        if absent:
            self._forbidden = self._erasures.read()
        if absent and self._forbidden.hashes <= self._honoured:
            shared = "; a local lake.uri must be a folder that all machines share" if self._storage.is_local else ""
            raise RunError(f"{absent} of {len(files)} files that workers wrote are not below {self.uri}{shared}")
        return present

    def _find_files(self, fingerprint: str) -> list[str]:
        adds = pa.table(self._delta.get_add_actions(flatten=True)).select(["path", "partition.fingerprint"])
        return adds.filter(pc.equal(adds["partition.fingerprint"], fingerprint))["path"].to_pylist()

    def _read_files(self, paths: list[str], schema: pa.Schema) -> ds.Dataset:
        return ds.dataset(paths, schema=schema, format="parquet", filesystem=self._storage.filesystem)

    def _catch_up(self, fingerprints: Sequence[str]) -> None:
        """Brings the table to its newest version, and learns the keys that came since these fingerprints were looked at."""
        self._delta.update_incremental()
        newest = self._delta.version()
        for fingerprint in fingerprints:
            seen = self._seen.get(fingerprint)
            paths = None if seen is None else self._find_added(seen, newest, fingerprint)
            if paths is None:  # nobody looked yet, or the log does not go back that far
                self._forbidden = self._erasures.read()
                paths = self._find_files(fingerprint)
            new = [path for path in paths if path not in self._own]
            known = self._keys.get(fingerprint, _KEYS.empty_table())
            if new:
                known = pa.concat_tables([known, self._read_files(new, _KEYS).to_table(cache_metadata=False)])
            self._keys[fingerprint] = known.combine_chunks() if known["attempt"].num_chunks > _MOST_CHUNKS else known
            self._seen[fingerprint] = newest
            self._own.difference_update(paths)

    def _find_added(self, after: int, until: int, fingerprint: str) -> list[str] | None:
        """Files of ``fingerprint`` with new rows in the versions after ``after``; None where the log no longer tells.

        Files that were only put together anew (compaction) hold no new rows.
        """
        paths = []
        for version in range(after + 1, until + 1):
            try:
                with self._storage.filesystem.open_input_stream(f"_delta_log/{version:020}.json") as stream:
                    actions = [json.loads(line) for line in stream.read().decode().splitlines() if line]
            except FileNotFoundError:
                return None
            if any(ERASURE_MARK in action.get("commitInfo", {}) for action in actions):
                self._forbidden = self._erasures.read()
            adds: list[dict[str, Any]] = [action["add"] for action in actions if "add" in action]
            paths += [
                unquote(add["path"])
                for add in adds
                if add["dataChange"] and add["partitionValues"]["fingerprint"] == fingerprint
            ]
        paths_of_others = [path for path in paths if path not in self._own]
        if not all(
            info.size for info in self._storage.filesystem.get_file_info(paths_of_others)
        ):  # written into another file since, and vacuumed: the newest list has them all
            return None
        return paths

    def _without_erased(self, files: Sequence[StagedFile]) -> tuple[list[StagedFile], int]:
        """``files`` less the rows of what was erased while they were made; what holds such rows is deleted at once."""
        new = ErasedSubjects(self._forbidden.hashes - self._honoured)
        if not new:
            return list(files), 0
        kept, erased, replaced = [], 0, []
        for file in files:
            with self._storage.filesystem.open_input_file(file.path) as source:
                rows = pq.ParquetFile(source).read(columns=["source", "dicom"]).to_pylist()
            keep = [
                not (new.covers_uri((row["source"] or {}).get("uri") or "") or new.covers_dicom(row["dicom"])) for row in rows
            ]
            if all(keep):
                kept.append(file)
                continue
            erased += keep.count(False)
            if any(keep):
                kept.append(keep_rows(file, keep, self._storage))
            replaced.append(file.path)
        for path in replaced:
            self._storage.filesystem.delete_file(path)
        return kept, erased

    def _without_committed(self, files: Sequence[StagedFile]) -> list[StagedFile]:
        """``files`` less the rows that are committed or came earlier among them; a file with such rows is written anew."""
        seen = {
            fingerprint: self._committed_among([f for f in files if f.fingerprint == fingerprint], fingerprint)
            for fingerprint in {file.fingerprint for file in files}
        }
        fresh = []
        for file in files:
            there = seen[file.fingerprint]
            keep = []
            for key in zip(file.recording_ids, file.attempts, strict=True):
                keep.append(key not in there)
                there.add(key)
            if all(keep):
                fresh.append(file)
            elif any(keep):
                fresh.append(keep_rows(file, keep, self._storage))
        return fresh

    def _committed_among(self, files: Sequence[StagedFile], fingerprint: str) -> set[tuple[str, int]]:
        """Keys of the committed rows of these recordings; hashes the few staged ids, not the many committed ones."""
        asked = pa.array([recording_id for file in files for recording_id in file.recording_ids], pa.string())
        keys = self._keys[fingerprint]
        found = keys.filter(pc.is_in(keys["recording_id"], value_set=asked))
        return set(zip(found["recording_id"].to_pylist(), found["attempt"].to_pylist(), strict=True))

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError | None:
        """One try on top of the version last read; the refusal when another writer of these fingerprints came first."""
        marks = []
        for fingerprint in sorted({file.fingerprint for file in files}):
            last = self._delta.transaction_version(fingerprint)
            marks.append(Transaction(fingerprint, 0 if last is None else last + 1))
        try:
            self._delta.create_write_transaction(
                [_make_action(file) for file in files],
                mode="append",
                schema=TRANSCRIPTS,
                partition_by=list(PARTITIONS),
                commit_properties=CommitProperties(app_transactions=marks),
            )
        except CommitFailedError as refusal:
            return refusal
        self._remember(files)
        return None

    def _remember(self, files: Sequence[StagedFile]) -> None:
        """Own rows need not be read back."""
        self._delta.update_incremental()
        for file in files:
            rows = pa.table([pa.array(file.recording_ids, pa.string()), pa.array(file.attempts, pa.int32())], schema=_KEYS)
            self._keys[file.fingerprint] = pa.concat_tables([self._keys[file.fingerprint], rows])
            self._own.add(file.path)


def _make_action(file: StagedFile) -> AddAction:
    partition = {"fingerprint": file.fingerprint, "recorded_month": file.recorded_month}
    return AddAction(file.path, file.size_bytes, partition, file.modified_ms, True, file.stats)
