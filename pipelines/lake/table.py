"""The driver's side of the lake: what is done, and commits that no other run can slip between.

Two appends do not conflict for Delta Lake, so both would go in and a recording could be there twice. Each commit therefore
carries an application transaction named after the fingerprint: Delta Lake refuses it when another commit with that name came
since the version it was built on (protocol: "Transaction Identifiers"). A refused commit looks again at what is there, leaves
those rows out, and tries again. The same way back serves a commit whose answer was lost: its rows are found to be there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from pipelines.config import Lake
from pipelines.errors import RunError
from pipelines.lake.delta import open_or_create_table
from pipelines.lake.schema import PARTITIONS, TRANSCRIPTS
from pipelines.lake.staging import TRANSCRIPTS_FOLDER, StagedFile, keep_rows
from pipelines.lake.storage import open_storage

COMMIT_TRIES = 20
_DONE_COLUMNS = ("recording_id", "attempt", "status", "archive_id", "archive_rows")
DONE = pa.schema([pa.field(name, TRANSCRIPTS.field(name).type) for name in _DONE_COLUMNS])


@dataclass(frozen=True)
class CommitResult:
    """What a commit did: ``files`` and ``rows`` that readers now see, and rows left out because they were ``already_there``."""

    version: int
    files: int
    rows: int
    already_there: int


class TranscriptTable:
    """The Delta table of transcripts, made if it is not there. For one thread: a second writer opens its own.

    Raises ConfigError for a bad ``lake.uri`` or storage option; RunError when the table is out of reach or has another schema.
    """

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, TRANSCRIPTS_FOLDER)
        self._delta: DeltaTable = open_or_create_table(
            self._storage, TRANSCRIPTS, PARTITIONS, "dictalake: one row per recording, fingerprint and attempt"
        )
        self._committed: dict[str, pa.Table] = {}  # fingerprint → rows (schema DONE) in the files that were read
        self._read_paths: dict[str, set[str]] = {}  # fingerprint → those files

    @property
    def uri(self) -> str:
        return self._storage.uri

    def done(self, fingerprint: str) -> pa.Table:
        """Rows committed under ``fingerprint`` by anyone, schema DONE, in no order.

        Reads these columns of the files of that fingerprint only, and later only what was added since. Raises RunError.
        """
        with self._lake_errors("read"):
            self._refresh([fingerprint])
        return self._committed[fingerprint]

    def commit(self, files: Sequence[StagedFile]) -> CommitResult:
        """Makes staged files visible, all at once; rows that are there already, and repeats among ``files``, are left out.

        Safe to call again with the same files, and against any number of other writers. Raises RunError when a file is not
        where it should be, the lake cannot be written, or other writers win COMMIT_TRIES times in a row.
        """
        with self._lake_errors("commit to"):
            self._require_present(files)
            remaining, refusal = list(files), None
            for attempt in range(COMMIT_TRIES):
                self._refresh(sorted({file.fingerprint for file in remaining}))
                remaining = self._without_committed(remaining)
                refusal = self._try_commit(remaining) if remaining else None
                if refusal is None:
                    rows = sum(file.rows for file in remaining)
                    already_there = sum(file.rows for file in files) - rows
                    return CommitResult(self._delta.version(), len(remaining), rows, already_there)
                # Jitter, so that writers that met once do not meet again and again.
                time.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))
        raise RunError(
            f"{COMMIT_TRIES} commits in a row to {self.uri} were refused, the last with: {refusal}; "
            "if other runs write there too, raise lake.commit_every_s or let fewer write at once"
        )

    @contextmanager
    def _lake_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot {action} the table at {self.uri}: {error}; run the same command again to go on") from error

    def _require_present(self, files: Sequence[StagedFile]) -> None:
        """A commit of a file that is not there would break the table for every reader."""
        infos = self._storage.filesystem.get_file_info([file.path for file in files])
        absent = sum(info.size != file.size_bytes for info, file in zip(infos, files, strict=True))
        if absent:
            shared = "; a local lake.uri must be a folder that all machines share" if self._storage.is_local else ""
            raise RunError(f"{absent} of {len(files)} files that workers wrote are not below {self.uri}{shared}")

    def _refresh(self, fingerprints: Sequence[str]) -> None:
        """Brings the table to its newest version and reads which rows its new files have."""
        self._delta.update_incremental()
        adds = pa.table(self._delta.get_add_actions(flatten=True)).select(["path", "partition.fingerprint"])
        for fingerprint in fingerprints:
            mine = adds.filter(pc.equal(adds["partition.fingerprint"], fingerprint))
            self._read_new_files(fingerprint, mine["path"].to_pylist())

    def _read_new_files(self, fingerprint: str, paths: Sequence[str]) -> None:
        read = self._read_paths.setdefault(fingerprint, set())
        known = self._committed.setdefault(fingerprint, DONE.empty_table())
        new = [path for path in paths if path not in read]
        if new:
            dataset = ds.dataset(new, schema=DONE, format="parquet", filesystem=self._storage.filesystem)
            self._committed[fingerprint] = pa.concat_tables([known, dataset.to_table()]).combine_chunks()
            read.update(new)

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
        committed = self._committed[fingerprint]
        found = committed.filter(pc.is_in(committed["recording_id"], value_set=asked))
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
            columns = [file.recording_ids, file.attempts, file.statuses, file.archive_ids, file.archive_rows]
            rows = pa.table([pa.array(column, field.type) for column, field in zip(columns, DONE, strict=True)], schema=DONE)
            self._committed[file.fingerprint] = pa.concat_tables([self._committed[file.fingerprint], rows])
            self._read_paths[file.fingerprint].add(file.path)


def _make_action(file: StagedFile) -> AddAction:
    partition = {"fingerprint": file.fingerprint, "recorded_month": file.recorded_month}
    return AddAction(file.path, file.size_bytes, partition, file.modified_ms, True, file.stats)
