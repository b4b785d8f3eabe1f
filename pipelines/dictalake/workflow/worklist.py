"""What a run has to do: the recordings of the archive, less those that are done, erased, or claimed by another live run.

The sets hold millions of recordings, so DuckDB computes them (``worklist.sql``) on disk and within ``_MEMORY``. Neither the
archive, nor what is done, nor the remaining work is ever held in this process's memory as a whole. The work is written as the
run's manifest in order of date, so that rows that are committed together lie in few partitions of the lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dictalake import logs, stops
from dictalake.archive.findings import Findings
from dictalake.config.sections import Config
from dictalake.errors import ConfigError, RunError, list_reasons, make_error
from dictalake.lake.rechecks import LOST
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.records import Recording
from dictalake.workflow import columns
from dictalake.workflow.old_names import find_old_uris, list_old_names

_MEMORY = "256MB"  # enough for ten million recordings; two million are no slower than with 1 GB, the rest goes to disk
_THREADS = 2  # each needs separate memory, and listing takes longer than DuckDB's work
_BATCH = 2_000
_TRIES = 3
# A small archive is cut into smaller blocks than ray.block_rows, so that all workers get some and commits come in steps.
_LEAST_BLOCKS, _SMALLEST_BLOCK = 16, 4
_REFRESH = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
_COUNTED = ("found", "skipped", "skipped_failed", "claimed", "pending", "retried")
_FOUND = ("recording_id", "uri", "version", "size_bytes", "modified_at", "metadata", "ending", "reason", "detail")
CLAIMED = pa.schema([pa.field("recording_id", pa.string())])


@dataclass(frozen=True)
class Retry:
    """Which recordings are done again: with ``failed`` those whose newest row failed and is retryable, or has one of
    ``reasons``; with ``lost`` those whose newest row is good and lost sound, as a recheck found; with ``misread`` those whose
    newest row is good and was read otherwise than the configuration says now of headerless files.

    Raises ConfigError for a reason that does not exist.
    """

    reasons: tuple[str, ...] = ()
    failed: bool = True
    lost: bool = False
    misread: bool = False

    def __post_init__(self) -> None:
        known = list_reasons()
        unknown = sorted(set(self.reasons) - set(known))
        if unknown:
            raise ConfigError(f"--retry-failed {','.join(unknown)}: no such reason; there are {', '.join(known)}")


@dataclass(frozen=True)
class Counts:
    """Of the ``found`` objects ``skipped`` were done before (with ``skipped_failed`` failed rows), ``claimed`` belong to
    another live run, ``erased`` must not be transcribed, and ``pending`` are to be done, ``retried`` of them again."""

    found: int = 0
    skipped: int = 0
    skipped_failed: int = 0
    claimed: int = 0
    erased: int = 0
    pending: int = 0
    retried: int = 0


class WorkList:
    """The recordings that a run has to do. The listing of the archive stays on disk; ``refresh`` subtracts what is done.

    ``counts`` and ``blocks()`` describe the work after the last ``refresh``. ``done_before`` maps a pending archive object to
    the number of its rows that earlier runs have written.

    A listing that goes on while the run is at work comes in parts: ``add`` takes recordings in, ``close_part`` makes a part of
    them, and ``refresh`` with its number finds the work in that part alone. A recording is in one part.
    """

    def __init__(
        self,
        found: Iterable[Recording],
        forbidden: ErasedSubjects,
        config: Config,
        folder: Path,
        findings: Findings | None = None,
    ) -> None:
        """Reads ``found``; of a recording that it repeats the first counts. ``folder`` is empty and on a local disk with room
        for the list. ``findings`` are filled while ``found`` is read. Raises RunError, and what ``found`` raises.
        """
        self._config, self.counts, self._listed = config, Counts(), forbidden
        self._folder = folder
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.done_before: dict[str, int] = {}
        self._erased = self._seq = self._parts = 0
        with plain_errors():
            self._database.execute(_CREATE)
        self.add(found)
        self.close_part(findings)

    def add(self, found: Iterable[Recording]) -> None:
        """Takes in more of the listing."""
        with plain_errors():
            self._seq, erased = _insert_found(self._database, found, self._listed, self._seq)
        self._erased += erased

    def close_part(self, findings: Findings | None = None) -> int:
        """Makes a part of what was added since the last one; returns its number."""
        part, self._parts = self._parts, self._parts + 1
        with plain_errors():
            self._database.execute((_DEDUPLICATE if part == 0 else _ADD_PART).replace("$part", str(part)))
            if findings is not None and findings.folder_aliases:
                self._erased += _add_aliases(self._database, findings.folder_aliases, self._listed, part)
        return part

    def refresh(
        self,
        done: Callable[[], ds.Dataset],
        claimed: Callable[[], ds.Dataset],
        retry: Retry | None = None,
        *,
        known: Callable[[], ds.Dataset] | None = None,
        lost: pa.Table | None = None,
        is_same_run: bool = False,
        part: int | None = None,
    ) -> None:
        """Computes the work anew, of one ``part`` or of all. Raises RunError.

        ``done()`` gives the rows in the lake (schema table.DONE), ``known()`` the ids that are in it under any fingerprint
        (schema table.KNOWN; without it those of ``done()``), by which recordings keep the names of older versions.
        ``claimed()`` gives the recordings of other live runs (schema CLAIMED), ``lost`` the rows that lost sound (schema
        rechecks.LOST). ``is_same_run`` means that this run has been over its manifest and only looks for what has no row yet.
        """
        if part is None:
            self.done_before.clear()
        with plain_errors():
            for attempt in range(1, _TRIES + 1):
                rows = done()
                self._database.register("done_rows", _scan(rows))
                self._database.register("known_rows", _scan(rows if known is None else known()))
                self._database.register("claimed_rows", _scan(claimed()))
                self._database.register("lost_rows", lost if lost is not None else LOST.empty_table())
                try:
                    self._set_variables(retry, is_same_run=is_same_run, is_part=part is not None)
                    self._database.execute(_ALL if part is None else _PART.replace("$part", str(part)))
                    self._database.execute(_REFRESH)
                    break
                except (duckdb.Error, OSError, pa.ArrowException):
                    # Files that existed a moment ago may have been compacted or erased: a new listing no longer names them.
                    if attempt == _TRIES:
                        raise
            (row,) = self._database.execute(f"SELECT {', '.join(_COUNTED)} FROM counts").fetchall()
            [(adopted,)] = self._database.execute("SELECT count(*) FROM adopted").fetchall()
            if part is not None:
                self._database.execute("DELETE FROM older_names")  # its recordings have the names now that they keep
        self.counts = Counts(**dict(zip(_COUNTED, row, strict=True)), erased=self._erased)
        if adopted:
            logs.log_event(
                "old_names",
                f"{adopted} recordings are in the lake under the ids of an older version, which they keep: their paths were "
                "spelled otherwise, went through links, or hold a #",
            )

    def _set_variables(self, retry: Retry | None, *, is_same_run: bool, is_part: bool) -> None:
        kind = "none" if retry is None or not retry.failed else "reasons" if retry.reasons else "retryable"
        self._database.execute("SET VARIABLE retry = $1", [kind])
        self._database.execute("SET VARIABLE retry_reasons = $1::VARCHAR[]", [list(retry.reasons) if retry else []])
        self._database.execute("SET VARIABLE retry_lost = $1", [retry is not None and (retry.lost or retry.misread)])
        self._database.execute("SET VARIABLE is_same_run = $1", [is_same_run])
        self._database.execute("SET VARIABLE is_part = $1", [is_part])

    def leave_out(self, forbidden: ErasedSubjects) -> None:
        """Removes what was erased after the listing from the work, now and in later calls of ``refresh``."""
        new = ErasedSubjects(forbidden.hashes - self._listed.hashes)
        uris: list[str] = []
        if new:
            self._database.execute("SELECT uri, version FROM pending")
            while rows := self._database.fetchmany(_BATCH):
                uris += [uri for uri, version in rows if new.covers_recording(uri, version)]
        covered = pa.table({"uri": pa.array(uris, pa.string())})
        if covered.num_rows:
            self._database.register("covered", covered)
            for name in ("pending", "listed"):
                self._database.execute(f"DELETE FROM {name} WHERE uri IN (SELECT uri FROM covered)")
            self._erased += covered.num_rows
            pending = self.counts.pending - covered.num_rows
            self.counts = replace(self.counts, erased=self._erased, pending=pending)

    def sum_pending_bytes(self) -> int:
        """The stored bytes of the work."""
        (row,) = self._database.execute("SELECT coalesce(sum(size_bytes), 0)::BIGINT FROM pending").fetchall()
        return int(row[0])

    def blocks(self) -> Iterator[list[Recording]]:
        """The recordings in order of date, in the blocks of ``plan_blocks``.

        After the last block the list stays on disk and takes no memory until the next call: a run takes hours.
        """
        return plan_blocks(self._read(), self.counts.pending, self._config)

    @property
    def _database(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = _connect(self._folder)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self) -> Iterator[Recording]:
        self._database.execute("SELECT * EXCLUDE (retried) FROM pending ORDER BY modified_at NULLS LAST, uri")
        while rows := self._database.fetchmany(_BATCH):
            names = [column[0] for column in self._database.description or ()]
            for values in rows:
                row = dict(zip(names, values, strict=True))
                members = row.pop("member_attempts") or {}
                done = tuple(sorted(row.pop("done_members") or ()))
                if done:
                    self.done_before[row["recording_id"]] = len(done)
                when, reason, detail = row.pop("modified_at"), row.pop("reason"), row.pop("detail")
                yield Recording(
                    **{**row, "metadata": dict(row["metadata"] or {})},
                    modified_at=None if when is None else datetime.fromtimestamp(when / 1e6, UTC),
                    # Marks a partly done archive object: worklist.sql tells by it that a later reading failed.
                    archive_id=row["recording_id"] if done or members else None,
                    done_members=done,
                    member_attempts=members,
                    error=None if reason is None else make_error(reason, row["recording_id"], detail),
                )
        with plain_errors():
            self._close()


@contextmanager
def plain_errors() -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError, pa.ArrowException) as error:  # their messages may quote paths
        raise RunError(
            f"cannot compute the work list ({type(error).__name__}): check that the folder for temporary files (TMPDIR) "
            "has about 350 bytes for each recording of the archive and that the lake can be reached; then run the same command "
            "again"
        ) from None


def _connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """The database in ``folder``, created if it is missing."""
    database = stops.interrupted_by_stops(duckdb.connect(str(folder / "work.duckdb")))
    database.execute(f"SET threads = {_THREADS}; SET memory_limit = '{_MEMORY}'; SET temp_directory = '{folder / 'spill'}'")
    database.execute("SET preserve_insertion_order = false")
    return database


def _scan(rows: ds.Dataset) -> ds.Scanner:
    """A scanner that reads ``rows`` once and keeps no footers in memory: they take 0.2 MB a file, and an uncompacted lake has
    a file for each block of recordings."""
    return rows.scanner(cache_metadata=False)


def _insert_found(
    database: duckdb.DuckDBPyConnection, found: Iterable[Recording], forbidden: ErasedSubjects, seq: int
) -> tuple[int, int]:
    """Adds to the table ``found`` from number ``seq`` on; returns the next number, and how many recordings were left out
    because they were erased."""
    recordings = iter(found)
    erased = 0
    while batch := list(islice(recordings, _BATCH)):
        admitted = [one for one in batch if not _is_erased((one.uri, *one.old_uris), one.version, forbidden)]
        erased += len(batch) - len(admitted)
        rows = columns.recordings_to_table(admitted)  # DuckDB reads it by its name
        for name in ("reason", "detail"):
            rows = rows.append_column(name, pc.struct_field(rows["error"], name))
        rows = rows.select(list(_FOUND))
        microseconds = pc.cast(rows["modified_at"], pa.int64())
        rows = rows.set_column(rows.schema.get_field_index("modified_at"), "modified_at", microseconds)
        rows = rows.add_column(0, "seq", pa.array(range(seq, seq + len(admitted)), pa.int64()))
        database.execute("INSERT INTO found SELECT * FROM rows")
        named = (one for one in admitted if one.old_uris or "#" in one.uri)
        _insert_names(database, ((one.recording_id, [one.uri, *one.old_uris], one.version) for one in named))
        seq += len(admitted)
    return seq, erased


def _is_erased(uris: Iterable[str], version: str, forbidden: ErasedSubjects) -> bool:
    return any(forbidden.covers_recording(uri, version) for uri in uris)


def _insert_names(database: duckdb.DuckDBPyConnection, named: Iterable[tuple[str, list[str], str]]) -> None:
    """Notes the older names of recordings, given by their ids, their URIs and their versions."""
    names = [
        {"recording_id": recording_id, "old_id": old_id, "old_uri": old_uri, "rank": rank}
        for recording_id, uris, version in named
        for rank, (old_id, old_uri) in enumerate(list_old_names(recording_id, uris, version))
    ]
    if names:
        database.register("names", pa.Table.from_pylist(names))
        database.execute("INSERT INTO older_names SELECT * FROM names")


def _add_aliases(
    database: duckdb.DuckDBPyConnection, folder_aliases: Mapping[str, Sequence[str]], forbidden: ErasedSubjects, part: int
) -> int:
    """Notes the older names that follow from those of folders; returns how many recordings were erased under one of them."""
    reader, erased = database.cursor(), []
    reader.execute("SELECT recording_id, uri, version FROM listed WHERE part = $1", [part])
    while rows := reader.fetchmany(_BATCH):
        named = [(one, [uri, *find_old_uris(uri, folder_aliases)], version) for one, uri, version in rows]
        erased += [one for one, uris, version in named if _is_erased(uris, version, forbidden)]
        _insert_names(database, (one for one in named if len(one[1]) > 1))
    gone = pa.table({"recording_id": pa.array(erased, pa.string())})
    database.register("gone", gone)
    database.execute("DELETE FROM listed WHERE recording_id IN (SELECT recording_id FROM gone)")
    return len(erased)


_NOTHING_FOUND = """
    CREATE OR REPLACE TABLE found (seq BIGINT, recording_id VARCHAR, uri VARCHAR, version VARCHAR, size_bytes BIGINT,
      modified_at BIGINT, metadata MAP(VARCHAR, VARCHAR), ending VARCHAR, reason VARCHAR, detail VARCHAR);
"""
_CREATE = f"""
    {_NOTHING_FOUND}
    CREATE TABLE older_names (recording_id VARCHAR, old_id VARCHAR, old_uri VARCHAR, rank BIGINT);
    CREATE TABLE renamed (recording_id VARCHAR);
"""
# The first of each counts; of its ending the first that says something.
_FIRST_OF_EACH = """
    SELECT * EXCLUDE (seq) REPLACE (arg_min(ending, seq) OVER same AS ending), $part AS part
      FROM found
      WINDOW same AS (PARTITION BY recording_id)
      QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY seq) = 1
"""
_DEDUPLICATE = f"CREATE TABLE listed AS {_FIRST_OF_EACH}; {_NOTHING_FOUND}"
# What an earlier part has is at work: it may have got the name by which the lake knows it, and gets no other one now.
_ADD_PART = f"""
    DELETE FROM older_names WHERE recording_id IN (SELECT recording_id FROM listed);
    DELETE FROM found WHERE recording_id IN (SELECT recording_id FROM listed)
      OR recording_id IN (SELECT recording_id FROM renamed);
    INSERT INTO listed {_FIRST_OF_EACH}; {_NOTHING_FOUND}
"""
_ALL = """
    CREATE OR REPLACE TEMP VIEW asked_for AS SELECT * FROM listed;
    CREATE OR REPLACE TEMP VIEW their_rows AS SELECT * FROM done_rows;
"""
_PART = """
    CREATE OR REPLACE TEMP VIEW asked_for AS SELECT * FROM listed WHERE part = $part;
    CREATE OR REPLACE TEMP VIEW their_rows AS SELECT * FROM done_rows
      WHERE recording_id IN (SELECT recording_id FROM asked_for) OR archive_id IN (SELECT recording_id FROM asked_for);
"""


def plan_blocks(recordings: Iterable[Recording], count: int, config: Config) -> Iterator[list[Recording]]:
    """Cuts ``count`` recordings into blocks that are processed and committed together.

    Their number and their stored bytes are bounded, so a block of long recordings stays small. A small archive still makes
    several blocks.
    """
    block_rows = min(config.ray.block_rows, max(_SMALLEST_BLOCK, -(-count // _LEAST_BLOCKS)))
    block: list[Recording] = []
    size_bytes = 0
    for recording in recordings:
        over = size_bytes + recording.size_bytes > config.ray.block_mb * 1e6
        if block and (over or len(block) >= block_rows):
            yield block
            block, size_bytes = [], 0
        block.append(recording)
        size_bytes += recording.size_bytes
    if block:
        yield block
