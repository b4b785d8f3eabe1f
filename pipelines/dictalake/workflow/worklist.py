"""What there is to do: the recordings of the archive, less what is done, erased, or claimed by another live run.

Sets of millions meet here, so DuckDB does it, on disk and within ``_MEMORY``: neither the archive, nor what is done, nor the
work left is ever in this process's memory as a whole. The work leaves it as the run's manifest, in order of date, so that what
is committed together lies in few partitions of the lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dictalake.config.sections import Config
from dictalake.errors import ConfigError, RunError, list_reasons
from dictalake.lake.tombstones import ErasedSubjects
from dictalake.records import Recording
from dictalake.workflow import columns

_MEMORY = "256MB"  # enough for ten million recordings, and no slower for two million than 1 GB: the rest goes to the disk
_THREADS = 2  # each takes memory of its own, and listing takes longer than all that DuckDB does
_BATCH = 2_000
_TRIES = 3
# A small archive is cut finer than ray.block_rows, so that it is spread over workers and committed in steps.
_LEAST_BLOCKS, _SMALLEST_BLOCK = 16, 4
_FOUND = ("recording_id", "uri", "version", "size_bytes", "modified_at", "metadata")
CLAIMED = pa.schema([pa.field("recording_id", pa.string())])


@dataclass(frozen=True)
class Retry:
    """Which failed recordings are tried again: those whose newest row says it may pass, or has one of ``reasons``."""

    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = list_reasons()
        unknown = sorted(set(self.reasons) - set(known))
        if unknown:
            raise ConfigError(f"--retry-failed {','.join(unknown)}: no such reason; there are {', '.join(known)}")

    @property
    def condition(self) -> str:
        """SQL over the columns ``status``, ``retryable`` and ``reason``."""
        if not self.reasons:
            return "(status = 'failed' AND retryable)"
        return "(status = 'failed' AND reason IN (" + ", ".join(f"'{reason}'" for reason in self.reasons) + "))"


@dataclass(frozen=True)
class Counts:
    """``found`` objects: ``skipped`` were done before (``skipped_failed`` rows of them failed), ``claimed`` are another live
    run's, ``erased`` may not be transcribed, ``pending`` are to be done, ``retried`` of them again."""

    found: int = 0
    skipped: int = 0
    skipped_failed: int = 0
    claimed: int = 0
    erased: int = 0
    pending: int = 0
    retried: int = 0


class Work:
    """What there is to do, found in an archive's list that stays on disk: ``find`` subtracts, and may subtract again later.

    ``counts`` is of the last time, and ``blocks()`` gives that work once. ``done_before`` says of how many rows of a pending
    archive object earlier runs have taken care.
    """

    def __init__(self, found: Iterable[Recording], forbidden: ErasedSubjects, config: Config, folder: Path) -> None:
        """``found`` may repeat recordings: the first counts. ``folder`` is an empty one on a local disk with room for the list.

        Raises RunError, and what ``found`` raises.
        """
        self._config, self.counts, self._listed = config, Counts(), forbidden
        self._folder = folder
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.done_before: dict[str, int] = {}
        with _plain_errors():
            self._erased = _insert_found(self._database, found, forbidden)
            self._database.execute(_ONCE)

    def find(
        self,
        done: Callable[[], ds.Dataset],
        claimed: Callable[[], ds.Dataset],
        retry: Retry | None = None,
        *,
        is_same_run: bool = False,
    ) -> None:
        """``done()`` has the schema table.DONE, ``claimed()`` a column recording_id; ``is_same_run`` when it was done once
        and only what has no row is asked for. Raises RunError."""
        self.done_before.clear()
        with _plain_errors():
            for attempt in range(1, _TRIES + 1):
                self._database.register("done_rows", _scan(done()))
                self._database.register("claimed_rows", _scan(claimed()))
                try:
                    self._database.execute(_make_sql(retry, is_same_run=is_same_run))
                    break
                except (duckdb.Error, OSError, pa.ArrowException):
                    # Files that were there a moment ago may have been put together, or erased: the next list is without them.
                    if attempt == _TRIES:
                        raise
            (row,) = self._database.execute(_COUNTS).fetchall()
        self.counts = Counts(**dict(zip(_COUNTED, row, strict=True)), erased=self._erased)

    def leave_out(self, forbidden: ErasedSubjects) -> None:
        """Takes what was erased since the listing out of the work, and out of any later one."""
        new = ErasedSubjects(forbidden.hashes - self._listed.hashes)
        uris: list[str] = []
        if new:
            self._database.execute("SELECT uri FROM pending")
            while rows := self._database.fetchmany(_BATCH):
                uris += [uri for (uri,) in rows if new.covers_uri(uri)]
        covered = pa.table({"uri": pa.array(uris, pa.string())})
        if covered.num_rows:
            self._database.register("covered", covered)
            for name in ("pending", "once"):
                self._database.execute(f"DELETE FROM {name} WHERE uri IN (SELECT uri FROM covered)")
            self._erased += covered.num_rows
            pending = self.counts.pending - covered.num_rows
            self.counts = replace(self.counts, erased=self._erased, pending=pending)

    def blocks(self) -> Iterator[list[Recording]]:
        """Recordings in order of date, in blocks as ``plan_blocks`` cuts them.

        After the last one the list is left on disk, and takes no memory until it is asked for again: a run takes hours.
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
                when = row.pop("modified_at")
                yield Recording(
                    **{**row, "metadata": dict(row["metadata"] or {})},
                    modified_at=None if when is None else datetime.fromtimestamp(when / 1e6, UTC),
                    # A half-done archive object: a row that says that this look at it failed is known by that.
                    archive_id=row["recording_id"] if done or members else None,
                    done_members=done,
                    member_attempts=members,
                )
        with _plain_errors():
            self._close()


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError, pa.ArrowException) as error:  # their words may quote paths
        raise RunError(
            f"cannot find out what there is to do ({type(error).__name__}): the folder for temporary files (TMPDIR) needs "
            "about 350 bytes for each recording of the archive, and the lake must be in reach; then run the same command again"
        ) from None


def _connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """The database in ``folder``, made if it is not there."""
    database = duckdb.connect(str(folder / "work.duckdb"))
    database.execute(f"SET threads = {_THREADS}; SET memory_limit = '{_MEMORY}'; SET temp_directory = '{folder / 'spill'}'")
    database.execute("SET preserve_insertion_order = false")
    return database


def _scan(rows: ds.Dataset) -> ds.Scanner:
    """``rows``, to be read once. A dataset keeps the footers of the files it reads, 0.2 MB each with the lake's many columns,
    and each block of recordings is a file until they are put together."""
    return rows.scanner(cache_metadata=False)


def _insert_found(database: duckdb.DuckDBPyConnection, found: Iterable[Recording], forbidden: ErasedSubjects) -> int:
    """Fills the table ``found``; returns how many were left out as erased."""
    database.execute(
        "CREATE TABLE found (seq BIGINT, recording_id VARCHAR, uri VARCHAR, version VARCHAR, size_bytes BIGINT, "
        "modified_at BIGINT, metadata MAP(VARCHAR, VARCHAR))"
    )
    recordings = iter(found)
    seq = erased = 0
    while batch := list(islice(recordings, _BATCH)):
        admitted = [recording for recording in batch if not forbidden.covers_uri(recording.uri)] if forbidden else batch
        erased += len(batch) - len(admitted)
        rows = columns.recordings_to_table(admitted).select(list(_FOUND))  # DuckDB reads it by its name
        microseconds = pc.cast(rows["modified_at"], pa.int64())
        rows = rows.set_column(rows.schema.get_field_index("modified_at"), "modified_at", microseconds)
        rows = rows.add_column(0, "seq", pa.array(range(seq, seq + len(admitted)), pa.int64()))
        database.execute("INSERT INTO found SELECT * FROM rows")
        seq += len(admitted)
    return erased


_ONCE = """
    CREATE TABLE once AS
      SELECT * EXCLUDE (seq) FROM found QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY seq) = 1;
    DROP TABLE found;
"""


def _make_sql(retry: Retry | None, *, is_same_run: bool) -> str:
    again = retry.condition if retry else "false"
    same_run = "true" if is_same_run else "false"
    return f"""
    DROP TABLE IF EXISTS newest;
    DROP TABLE IF EXISTS members;
    DROP TABLE IF EXISTS archives;
    DROP TABLE IF EXISTS states;
    DROP TABLE IF EXISTS free;
    DROP TABLE IF EXISTS pending;

    -- The newest row of each recording. A row's own archive_id is null for an object that never was known as an archive.
    CREATE TABLE newest AS
      SELECT *, {again} AS again FROM (
        SELECT recording_id, max(attempt) AS attempt, arg_max(status, attempt) AS status,
               arg_max(error.reason, attempt) AS reason, arg_max(error.retryable, attempt) AS retryable,
               max(archive_id) AS archive_id, arg_max_null(archive_rows, attempt) AS archive_rows,
               arg_max_null(archive_id, attempt) AS newest_archive_id
        FROM done_rows GROUP BY recording_id);

    CREATE TABLE members AS SELECT * FROM newest WHERE archive_id <> recording_id;

    -- An archive object is done when as many rows of it are committed as its files say it makes. Its own row
    -- counts only if it is of the same look at it (part of it is damaged): one that says that it could not be opened, or read
    -- again, is of another. One without a number of rows says that a look at a half-done object failed: such an object is given
    -- up until it is asked for again, if the reason does not pass by itself.
    CREATE TABLE archives AS
      SELECT m.archive_id, m.files, m.wanted, m.again, coalesce(own.archive_rows = m.wanted, false) AS own_counts,
             coalesce(own.newest_archive_id IS NOT NULL AND own.archive_rows IS NULL, false) AS gave_up,
             m.files + coalesce(own.archive_rows = m.wanted, false)::INT >= m.wanted
               OR (gave_up AND (NOT own.retryable OR own.reason = 'worker_crashed' OR {same_run})) AS complete
      FROM (SELECT archive_id, count(*) AS files, max(archive_rows) AS wanted, bool_or(again) AS again
            FROM members GROUP BY archive_id) AS m
      LEFT JOIN newest AS own ON own.recording_id = m.archive_id;

    CREATE TABLE states AS
      SELECT o.recording_id, coalesce(n.attempt + 1, 0)::INT AS attempt, a.archive_id AS opened,
        CASE
          WHEN a.archive_id IS NOT NULL THEN
            CASE WHEN NOT a.complete THEN 'pending'
                 WHEN a.again OR ((a.own_counts OR a.gave_up) AND coalesce(n.again, false)) THEN 'again' ELSE 'done' END
          WHEN n.recording_id IS NULL THEN 'pending'
          WHEN n.archive_rows > 1 THEN 'pending'  -- its own row, without those of its files
          WHEN n.again THEN 'again'
          ELSE 'done' END AS state
      FROM once AS o LEFT JOIN newest AS n USING (recording_id) LEFT JOIN archives AS a ON a.archive_id = o.recording_id;

    CREATE TABLE free AS
      SELECT * FROM states
      WHERE state <> 'done' AND recording_id NOT IN (SELECT recording_id FROM claimed_rows WHERE recording_id IS NOT NULL);

    CREATE TABLE pending AS
      SELECT o.*, f.attempt, f.state = 'again' AS retried,
             CASE WHEN a.own_counts AND NOT own.again THEN list_append(coalesce(m.done, []), f.recording_id)
                  ELSE m.done END AS done_members,
             m.attempts AS member_attempts
      FROM free AS f JOIN once AS o USING (recording_id)
      LEFT JOIN archives AS a ON a.archive_id = f.opened
      LEFT JOIN newest AS own ON own.recording_id = f.opened
      LEFT JOIN (SELECT archive_id, list(recording_id) FILTER (NOT again) AS done,
                        map_from_entries(list((recording_id, (attempt + 1)::INT)) FILTER (again)) AS attempts
                 FROM members WHERE archive_id IN (SELECT opened FROM free) GROUP BY archive_id) AS m
        ON m.archive_id = f.opened;
    """


_COUNTED = ("found", "skipped", "skipped_failed", "claimed", "pending", "retried")
_COUNTS = """
    SELECT (SELECT count(*) FROM states),
           (SELECT count(*) FROM states WHERE state = 'done'),
           (SELECT count(*) FROM newest AS n WHERE n.status = 'failed' AND EXISTS (
               SELECT 1 FROM states AS s WHERE s.state = 'done' AND s.recording_id = coalesce(n.archive_id, n.recording_id)
               AND NOT (s.opened IS NOT NULL AND n.archive_id IS NULL))),
           (SELECT count(*) FROM states WHERE state <> 'done') - (SELECT count(*) FROM free),
           (SELECT count(*) FROM pending),
           (SELECT count(*) FROM pending WHERE retried)
"""


def plan_blocks(recordings: Iterable[Recording], count: int, config: Config) -> Iterator[list[Recording]]:
    """``count`` recordings in blocks that travel and are committed together: bounded in number and in stored bytes, so that a
    block of long recordings stays small and a small archive still makes several blocks."""
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
