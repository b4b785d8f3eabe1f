"""The driver's side of the lake: it reads what is done, and commits so that no other run can commit the same row.

Delta Lake lets two appends succeed side by side, so a recording could be there twice. Each commit is therefore written as the
version after the one that was last looked at, and refused when another writer has written that version. A refused commit reads
what is there now, leaves those rows out, and tries again. A commit whose answer was lost is handled in the same way: the next
try finds its rows. Each commit also carries an application transaction named after the fingerprint (protocol: "Transaction
Identifiers"), by which writers that build on older versions, as delta-rs does, are refused too.

A run reads from the log only what was committed after the version on which it was planned. It holds those keys in memory,
never the keys of everything that was ever done, and never the list of the table's files (``log_tail``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction
from tenacity import RetryCallState, Retrying, retry_if_exception

from dictalake import retries
from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.delta import is_storage_failure, open_or_create_table, open_table, read_parquet
from dictalake.lake.erased_rows import drop_erased
from dictalake.lake.log_tail import Commit, LogTail
from dictalake.lake.row_search import list_files
from dictalake.lake.row_tables import TRANSCRIPT_ROWS
from dictalake.lake.schema import PARTITIONS, TRANSCRIPTS
from dictalake.lake.staged_files import StagedFile, find_origin, keep_rows, refuse_rows
from dictalake.lake.storage import open_storage
from dictalake.lake.tombstones import ErasedSubjects, Erasures
from dictalake.retries import COMMIT_CONFLICT, COMMIT_REQUEST

COMMIT_PATIENCE_S = 300.0  # give up when other writers have come first for this long
_MOST_CHUNKS = 256
_IO_THREADS = 32
_STORAGE_TRIES = 8  # for a commit whose storage fails
ERASURE_MARK = "dictalake.erasure"  # in the commit info of a version that erases
_DONE_COLUMNS = ("recording_id", "attempt", "status", "archive_id", "archive_rows", "error")
DONE = pa.schema([pa.field(name, TRANSCRIPTS.field(name).type) for name in _DONE_COLUMNS])
KNOWN = pa.schema([DONE.field("recording_id"), DONE.field("archive_id")])
_KEYS = pa.schema([DONE.field("recording_id"), DONE.field("attempt"), DONE.field("archive_id")])


@dataclass(frozen=True)
class CommitResult:
    """What a commit did.

    Readers now see ``files`` of ``size_bytes`` with ``rows``. Rows were left out because they were ``already_there`` or
    because their recording was ``erased`` meanwhile. ``id_taken`` good rows became failed ones, as another recording had the
    same id. ``storage_retries`` requests were made again.
    """

    version: int
    files: int
    rows: int
    already_there: int
    erased: int = 0
    storage_retries: int = 0
    id_taken: int = 0
    size_bytes: int = field(default=0, compare=False)


class _Overtaken(Exception):
    """Another writer committed between the look at the table and the commit."""

    def __init__(self, refusal: CommitFailedError) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class _Attempt:
    """One call of ``commit`` from its first try to its last: the files that are left, and what became of the other rows."""

    def __init__(self, files: list[StagedFile]) -> None:
        self.remaining = files
        self.erased = 0  # rows
        self.id_taken = 0  # good rows
        self.refusals = 0
        self.storage_failures = 0
        self.is_present = False  # whether every remaining file was seen in the storage since it last failed
        self._rows = _count_rows(files)

    def is_over(self, state: RetryCallState) -> bool:
        """Whether the last failure is the last one: the storage failed too often, or the time is up."""
        waited_s = state.seconds_since_start or 0.0
        return self.storage_failures >= _STORAGE_TRIES or waited_s >= COMMIT_PATIENCE_S

    def find_pause_s(self, state: RetryCallState) -> float:
        """How long to wait after the last failure. Each of its two kinds has its own count."""
        assert state.outcome is not None
        if isinstance(state.outcome.exception(), _Overtaken):
            return COMMIT_CONFLICT.pause_s(self.refusals)
        return COMMIT_REQUEST.pause_s(self.storage_failures)

    def make_result(self, version: int) -> CommitResult:
        added = _count_rows(self.remaining)
        return CommitResult(
            version=version,
            files=len(self.remaining),
            rows=added,
            already_there=self._rows - added - self.erased,
            erased=self.erased,
            storage_retries=self.storage_failures,
            id_taken=self.id_taken,
            size_bytes=sum(file.size_bytes for file in self.remaining),
        )


class TranscriptTable:
    """The Delta table of transcripts, created if it is missing. Use it in one thread; a second writer opens its own.

    Raises ConfigError for a bad ``lake.uri`` or storage option. Raises RunError when the table cannot be reached or has
    another schema.
    """

    rows = TRANSCRIPT_ROWS  # another table of such rows has a subclass (``finding_rows``)

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, self.rows.folder)
        delta = open_or_create_table(self._storage, self.rows.schema, PARTITIONS, self.rows.description)
        with self._lake_errors("read"):
            self._log = LogTail(self._storage, delta)
        if not self._storage.is_local:  # reading many small files is mostly waiting
            pa.set_io_thread_count(max(pa.io_thread_count(), _IO_THREADS))
        self._erasures = Erasures(lake)
        self._forbidden = ErasedSubjects()
        self._acknowledged: frozenset[str] = frozenset()  # hashes that the stages leave out already
        # Fingerprint → keys (schema _KEYS) committed after `committed` was called, up to the version at which `_log` stands,
        # and the version of its transaction.
        self._keys: dict[str, pa.Table] = {}
        self._transactions: dict[str, int] = {}

    @property
    def uri(self) -> str:
        return self._storage.uri

    @property
    def forbidden(self) -> ErasedSubjects:
        """What had been erased when ``committed`` was called, and what this writer has found to be erased since."""
        return self._forbidden

    def read_erasures(self) -> ErasedSubjects:
        """Everything that has been erased so far. Raises RunError."""
        return self._erasures.read()

    def committed(self, fingerprint: str) -> ds.Dataset:
        """The rows that anyone has committed under ``fingerprint``: schema DONE, no order, a dataset that is read when used.

        The caller must leave these rows out by itself: ``commit`` only checks what was committed later. Raises RunError.
        """
        with self._lake_errors("read"):
            delta = self._open_table([fingerprint])
            self._acknowledged = self._forbidden.hashes
            self._keys[fingerprint] = _KEYS.empty_table()
            return read_parquet(_find_files(delta, fingerprint), DONE, self._storage)

    def known(self) -> ds.Dataset:
        """The ids of all rows, whatever their fingerprint: schema KNOWN, no order, a dataset that is read when used. Raises
        RunError."""
        with self._lake_errors("read"):
            return read_parquet(list_files(open_table(self._storage, self.rows.schema)), KNOWN, self._storage)

    def commit(self, files: Sequence[StagedFile]) -> CommitResult:
        """Makes staged files visible, all at once; rows that are there already, and repeats among ``files``, are left out.

        Safe to call again with the same files, and beside any number of other writers. Raises RunError when a file is not
        where it should be, the lake cannot be written, or other writers come first for COMMIT_PATIENCE_S; of the last two,
        which were tried for long, ``is_storage_failure`` knows.
        """
        attempt = _Attempt(list(files))
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, _Overtaken) or is_storage_failure(error)),
            stop=attempt.is_over,
            wait=attempt.find_pause_s,
            sleep=lambda seconds: retries.pause(seconds),
            reraise=True,
        )
        with self._lake_errors("commit to"):
            try:
                retrying(self._try_once, attempt)
            except _Overtaken as overtaken:
                raise RunError(
                    f"commits to {self.uri} were refused {attempt.refusals} times in {COMMIT_PATIENCE_S:g} s, the last with: "
                    f"{overtaken.refusal}; if other runs write there too, raise lake.commit_every_s or let fewer write at once"
                ) from overtaken.refusal
        if attempt.remaining:
            self._log.write_checkpoint()
        return attempt.make_result(self._log.version)

    def _try_once(self, attempt: _Attempt) -> None:
        """Takes out of ``attempt`` what must not be committed now, and commits the rest. Raises _Overtaken, and what
        ``is_storage_failure`` knows."""
        try:
            self._catch_up(sorted({file.fingerprint for file in attempt.remaining}))
            if not attempt.is_present:
                present = self._without_absent(attempt.remaining)
                attempt.erased += _count_rows(attempt.remaining) - _count_rows(present)
                attempt.remaining, attempt.is_present = present, True
            attempt.remaining, id_taken = self._without_committed(attempt.remaining)
            attempt.id_taken += id_taken
            # Only now, when no remaining file is named by the log: an erasure deletes files.
            attempt.remaining, erased = self._without_erased(attempt.remaining)
            attempt.erased += erased
            refusal = self._try_commit(attempt.remaining) if attempt.remaining else None
        except (OSError, DeltaError, RunError) as error:
            # The commit may have succeeded although its answer was lost: the next try finds out.
            attempt.storage_failures, attempt.is_present = attempt.storage_failures + is_storage_failure(error), False
            raise
        if refusal is not None:
            attempt.refusals += 1
            raise _Overtaken(refusal)

    @contextmanager
    def _lake_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, DeltaError) as error:
            raise RunError(f"cannot {action} the table at {self.uri}: {error}; run the same command again to resume") from error

    def _without_absent(self, files: Sequence[StagedFile]) -> list[StagedFile]:
        """``files`` less those that are gone, since a commit of a missing file breaks the table for every reader.

        An erasure also deletes uncommitted files that hold what it erases; a later run transcribes the other recordings in
        them. If no erasure explains why a file is gone, raises RunError.
        """
        infos = self._storage.filesystem.get_file_info([file.path for file in files])
        present = [file for info, file in zip(infos, files, strict=True) if info.size == file.size_bytes]
        absent = len(files) - len(present)
        if absent:
            self._forbidden = self._erasures.read()
        if absent and self._forbidden.hashes <= self._acknowledged:
            shared = "; a local lake.uri must be a folder that all machines share" if self._storage.is_local else ""
            raise RunError(f"{absent} of {len(files)} files that workers wrote are not below {self.uri}{shared}")
        return present

    def _open_table(self, fingerprints: Collection[str]) -> DeltaTable:
        """The newest version of the table, from which the log is followed now. Only these fingerprints are known afterwards.

        It holds a list of all files: let go of it soon.
        """
        self._keys.clear()  # first: no key may count as known up to a version to which it was not read
        delta = open_table(self._storage, self.rows.schema)
        self._log.restart(delta)
        self._forbidden = self._erasures.read()
        last = {fingerprint: delta.transaction_version(fingerprint) for fingerprint in fingerprints}
        self._transactions = {fingerprint: version for fingerprint, version in last.items() if version is not None}
        return delta

    def _catch_up(self, fingerprints: Collection[str]) -> None:
        """Reads the keys committed since the last look at these fingerprints, up to the newest version of the table."""
        commits = self._log.read_new()
        if any(commit.is_of_table for commit in commits or ()):  # an upgrade shuts writers of an older schema out
            self._log.check(open_table(self._storage, self.rows.schema))
        if commits is not None and self._keys.keys() >= set(fingerprints) and self._take_in(commits):
            self._log.advance(len(commits))
            return
        delta = self._open_table(fingerprints)
        for fingerprint in fingerprints:
            self._keys[fingerprint] = self._read_keys(_find_files(delta, fingerprint))

    def _take_in(self, commits: Sequence[Commit]) -> bool:
        """Adds what these commits brought; returns False if a file of theirs is gone.

        Files that compaction made hold no new rows.
        """
        if any(ERASURE_MARK in commit.info for commit in commits):
            self._forbidden = self._erasures.read()
        adds = [
            add
            for commit in commits
            for add in commit.adds
            if add["dataChange"] and add["partitionValues"]["fingerprint"] in self._keys
        ]
        infos = self._storage.filesystem.get_file_info([unquote(add["path"]) for add in adds])
        if not all(info.size for info in infos):
            # It was compacted into another one and vacuumed: the list of the newest version has its rows.
            return False
        for fingerprint, known in self._keys.items():
            new = [unquote(add["path"]) for add in adds if add["partitionValues"]["fingerprint"] == fingerprint]
            if new:
                self._keys[fingerprint] = _combine(known, self._read_keys(new))
        for commit in commits:
            self._transactions.update(commit.transactions)
        return True

    def _read_keys(self, paths: Sequence[str]) -> pa.Table:
        return read_parquet(paths, _KEYS, self._storage).to_table()

    def _without_erased(self, files: Sequence[StagedFile]) -> tuple[list[StagedFile], int]:
        new = ErasedSubjects(self._forbidden.hashes - self._acknowledged)
        return drop_erased(files, new, self._storage) if new else (list(files), 0)

    def _without_committed(self, files: Sequence[StagedFile]) -> tuple[list[StagedFile], int]:
        """``files`` less the rows that are committed already or repeat an earlier one; files with such rows are rewritten.

        A row of another recording with the same id is no repetition: it becomes a failed row with an id of its own, so that
        none is lost. Also returns how many good rows became such.
        """
        seen = {
            fingerprint: self._committed_among([f for f in files if f.fingerprint == fingerprint], fingerprint)
            for fingerprint in {file.fingerprint for file in files}
        }
        fresh, id_taken = [], 0
        for file in files:
            there = seen[file.fingerprint]
            keep, firsts = [], {}
            for place, key in enumerate(zip(file.recording_ids, file.attempts, strict=True)):
                origin = find_origin(key[0], file.archive_ids[place])
                keep.append(key not in there)
                if there.setdefault(key, origin) != origin:
                    firsts[place] = there[key]
            if all(keep):
                fresh.append(file)
            elif any(keep):
                fresh.append(keep_rows(file, keep, self._storage, self.rows))
            if firsts:
                refused, _ = self._without_committed([refuse_rows(file, firsts, self._storage)])
                id_taken += sum(file.statuses[place] == "ok" for place in firsts) if refused else 0
                fresh += refused
        return fresh, id_taken

    def _committed_among(self, files: Sequence[StagedFile], fingerprint: str) -> dict[tuple[str, int], str | None]:
        """The committed keys of these recordings, with the archive object that each is in. It hashes the few staged ids, not
        the many committed ones."""
        asked = pa.array([recording_id for file in files for recording_id in file.recording_ids], pa.string())
        keys = self._keys[fingerprint]
        found = keys.filter(pc.is_in(keys["recording_id"], value_set=asked)).to_pylist()
        return {(row["recording_id"], row["attempt"]): find_origin(row["recording_id"], row["archive_id"]) for row in found}

    def _try_commit(self, files: Sequence[StagedFile]) -> CommitFailedError | None:
        """Commits on top of the version last read; returns the refusal if another writer came first."""
        fingerprints = sorted({file.fingerprint for file in files})
        marks = {fingerprint: self._transactions.get(fingerprint, -1) + 1 for fingerprint in fingerprints}
        if not self._log.can_append:
            return self._commit_by_delta_rs(files, marks)
        if not self._log.append([file.to_add() for file in files], marks):
            return CommitFailedError(f"version {self._log.version + 1} was written by another writer")
        if self._log.is_overtaken() and not self._is_named(files[0]):
            self._keys.clear()  # the next look is at the table, not at the log, which names these files in its past
            return CommitFailedError(f"version {self._log.version + 1} was cleaned up before it was written")
        self._remember(files)
        self._transactions.update(marks)
        self._log.advance(1)
        return None

    def _is_named(self, file: StagedFile) -> bool:
        return file.path in list_files(open_table(self._storage, self.rows.schema))

    def _remember(self, files: Sequence[StagedFile]) -> None:
        """Adds the keys of own rows, so that they need not be read back."""
        for file in files:
            columns = zip(_KEYS, (file.recording_ids, file.attempts, file.archive_ids), strict=True)
            rows = pa.table([pa.array(values, field.type) for field, values in columns], schema=_KEYS)
            self._keys[file.fingerprint] = _combine(self._keys[file.fingerprint], rows)

    def _commit_by_delta_rs(self, files: Sequence[StagedFile], marks: Mapping[str, int]) -> CommitFailedError | None:
        """A commit to a table that somebody gave features that ask more of a writer."""
        delta = DeltaTable(self._storage.uri, self._log.version, dict(self._storage.delta_options))
        try:
            delta.create_write_transaction(
                [_make_action(file) for file in files],
                mode="append",
                schema=self.rows.schema,
                partition_by=list(PARTITIONS),
                commit_properties=CommitProperties(app_transactions=[Transaction(*mark) for mark in marks.items()]),
            )
        except CommitFailedError as refusal:
            return refusal
        self._catch_up(marks.keys())
        return None


def _combine(known: pa.Table, new: pa.Table) -> pa.Table:
    both = pa.concat_tables([known, new])
    return both.combine_chunks() if both["attempt"].num_chunks > _MOST_CHUNKS else both


def _find_files(delta: DeltaTable, fingerprint: str) -> list[str]:
    adds = pa.table(delta.get_add_actions(flatten=True)).select(["path", "partition.fingerprint"])
    return adds.filter(pc.equal(adds["partition.fingerprint"], fingerprint))["path"].to_pylist()


def _count_rows(files: Sequence[StagedFile]) -> int:
    return sum(file.rows for file in files)


def _make_action(file: StagedFile) -> AddAction:
    partition = {"fingerprint": file.fingerprint, "recorded_month": file.recorded_month}
    return AddAction(file.path, file.size_bytes, partition, file.modified_ms, True, file.stats)
