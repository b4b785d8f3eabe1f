"""The rows of a lake in few columns, in memory, brought up to date by what each commit added and removed.

A commit touches the recordings of the files that came and went, and those that share a URI with one of them, as one may have
replaced the other. Which of their rows count is found anew, by the views of ``lake/views.py``; nothing else is. A promotion
touches all.

Nothing is written to a disk but what DuckDB spills, into a private folder. What is erased while a part lies there is gone from
the folder too: then everything is read anew, and the folder removed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from fsspec.implementations.arrow import ArrowFSWrapper

from dictalake.config.sections import Lake
from dictalake.lake.delta import has_table, open_table
from dictalake.lake.fingerprints import open_fingerprints, read_records
from dictalake.lake.places import FINGERPRINTS_FOLDER, RECHECKS_FOLDER, SUPERSEDED_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.rechecks import open_rechecks
from dictalake.lake.row_search import iter_scan, list_files
from dictalake.lake.schema import RECHECKS, TRANSCRIPTS
from dictalake.lake.spills import make_spill_folder
from dictalake.lake.storage import open_storage
from dictalake.lake.superseded import WrittenDown, open_superseded
from dictalake.lake.views import STORED_SUPERSEDED, TRANSCRIPTS_OF_SINGLE_KEYS, VIEWS

_FILE = "path of the file"  # the column that ``iter_scan`` adds
_MEMORY = "450MB"
_MOST_TOUCHED = 0.2  # of all rows: with more, to look at every row is quicker
_ROWS_AT_ONCE = 200_000  # that are taken in before they are compressed
# Column of a scan → where it stands in a row of the table.
_READ: dict[str, tuple[str, ...]] = {
    **{
        name: (name,) for name in ("recording_id", "status", "run_id", "attempt", "confidence", "fingerprint", "recorded_month")
    },
    "metadata": ("metadata",),
    "uri": ("source", "uri"),
    "modified_at": ("source", "modified_at"),
    "channels": ("source", "channels"),
    "content_datetime": ("dicom", "content_datetime"),
    "reason": ("error", "reason"),
    "stage": ("error", "stage"),
    "duration_s": ("quality", "duration_s"),
    "speech_s": ("quality", "speech_s"),
    "uncovered_s": ("quality", "uncovered_speech_s"),
    "lost_s": ("quality", "lost_s"),
    "model_id": ("provenance", "model_id"),
    "transcribed_at": ("provenance", "transcribed_at"),
    "file": (_FILE,),
}
# Columns as the view recordings has them. ``key`` is the id in 16 bytes, in the same order.
_STORED = """
    SELECT to_key(recording_id) AS key, recording_id, status, run_id, attempt, fingerprint, recorded_month, uri,
        coalesce(content_datetime, modified_at) AS recorded_at,
        CASE WHEN content_datetime IS NOT NULL THEN 'dicom' WHEN modified_at IS NOT NULL THEN 'object' END
            AS recorded_at_source,
        modified_at, round(duration_s, 1) AS duration_s, channels,
        coalesce(metadata['specialty'], metadata['department']) AS specialty, CAST(metadata AS VARCHAR) AS metadata,
        reason, stage, round(CAST(confidence AS DOUBLE), 3) AS confidence, lost_s AS exact_lost_s,
        round(lost_s, 1) AS lost_s, speech_s, round(uncovered_s, 1) AS uncovered_s, model_id AS model, transcribed_at, file,
        false AS counts
    FROM {source}
"""
_TABLES = """
    CREATE TABLE promoted (fingerprint VARCHAR, place BIGINT, promoted_at TIMESTAMPTZ, promoted_by VARCHAR, run_id VARCHAR,
        replaced VARCHAR);
    CREATE TABLE kept_rechecks (recording_id UUID, fingerprint VARCHAR, attempt INTEGER, verdict VARCHAR, missing_s DOUBLE,
        loader INTEGER, "at" TIMESTAMPTZ);
    CREATE VIEW listed AS SELECT rowid AS number, * EXCLUDE (counts, exact_lost_s, modified_at, file)
        FROM stored_rows WHERE counts;
"""
TO_KEY = "CREATE MACRO to_key(id) AS coalesce(TRY_CAST(id AS UUID), CAST(md5(id) AS UUID))"
# What the views read, of the rows whose keys are in ``touched``. The number of a row goes through them in the place of its
# model, so that it tells which rows they choose.
_ROWS = """
    SELECT key AS recording_id, status, run_id, attempt, CAST(NULL AS FLOAT) AS confidence, fingerprint, recorded_month,
        CAST(NULL AS MAP(VARCHAR, VARCHAR)) AS metadata,
        {{'uri': NULL, 'modified_at': CAST(NULL AS TIMESTAMPTZ), 'channels': NULL}} AS source,
        {{'content_datetime': CAST(NULL AS TIMESTAMPTZ)}} AS dicom, {{'reason': NULL}} AS error,
        {{'duration_s': CAST(NULL AS DOUBLE), 'lost_s': exact_lost_s}} AS quality,
        {{'model_id': rowid, 'transcribed_at': transcribed_at}} AS provenance
    FROM stored_rows {some}
"""
_VERSIONS = """
    SELECT key AS recording_id, fingerprint, uri, modified_at, transcribed_at AS seen_at, reason FROM stored_rows {some}
"""
_SOME = "WHERE key IN (SELECT key FROM touched)"
_OF_RECHECKS = ("recording_id", "fingerprint", "attempt", "verdict", "missing_s", "loader", "at")
_RECHECKED = """
    SELECT to_key(recording_id) AS recording_id, fingerprint, attempt, verdict, missing_s, loader, "at" FROM found
    WHERE recording_id IN (SELECT recording_id FROM found WHERE verdict = 'lost')
"""
_SUPERSEDED = 'SELECT to_key(recording_id) AS recording_id, to_key(superseded_by) AS superseded_by, "at" FROM found'
_NO_CORRECTIONS = """
    SELECT CAST(NULL AS UUID) AS recording_id, CAST(NULL AS VARCHAR) AS "text", CAST(NULL AS VARCHAR) AS who WHERE false
"""


class KeptRows:
    """The tables ``stored_rows`` and ``promoted`` and the view ``listed`` of ``database``, which also reads the files of the
    lake: ``lake://PATH``. ``refresh`` is for one thread at a time; others may read meanwhile, and see all of a commit or
    nothing of it."""

    def __init__(self, lake: Lake) -> None:
        self._storages = {
            name: open_storage(lake, name)
            for name in (TRANSCRIPTS_FOLDER, FINGERPRINTS_FOLDER, RECHECKS_FOLDER, SUPERSEDED_FOLDER)
        }
        self._tables: dict[str, DeltaTable] = {}
        self._files: set[str] = set()
        self.state: dict[str, tuple[Any, int]] = {}  # the tables that were taken in, and their versions
        self.is_stale = False  # whether to begin anew
        self.is_replaced = False  # whether the lake is another one than it was
        self._last: Any = None  # size and date of the last version that was taken in
        self.database = duckdb.connect(config={"memory_limit": _MEMORY, "autoload_known_extensions": False})
        self.spill, remove = make_spill_folder("dictalake-review-")
        weakref.finalize(self, remove)
        self.database.register_filesystem(_Files(self._storages[TRANSCRIPTS_FOLDER].filesystem))
        self.database.execute("SET temp_directory = ?", [str(self.spill)])
        self.database.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        self.database.execute(f"ATTACH ':memory:' AS kept (COMPRESS); USE kept; {TO_KEY}")
        self.database.register("arriving", _SCHEMA.empty_table())
        self.database.execute(f"CREATE TABLE stored_rows AS {_STORED.format(source='arriving')}; {_TABLES}")
        self.database.unregister("arriving")

    def refresh(self) -> None:
        """Raises RunError, OSError, and errors of DuckDB, Delta and Arrow; then everything is as before."""
        if self.is_replaced or self._is_replaced():
            self.is_stale = self.is_replaced = True
            return
        tables = {name: self._follow(name) for name in (TRANSCRIPTS_FOLDER, FINGERPRINTS_FOLDER, RECHECKS_FOLDER)}
        state = {name: (table.metadata().id, table.version()) for name, table in tables.items() if table is not None}
        if state == self.state:
            return
        transcripts = tables[TRANSCRIPTS_FOLDER]
        assert transcripts is not None
        paths = set(list_files(transcripts))
        gone = self._files - paths
        if len(gone) > len(self._files) / 2:  # a compaction
            self.is_stale = True
            return
        with self.database.cursor() as cursor:
            cursor.execute("USE kept; SET TimeZone = 'UTC'")
            for some in _split(transcripts) if not self.state else ():  # nobody reads yet
                self._commit(cursor, self._files | some, partial(self._insert, cursor, some - self._files))
            self._commit(cursor, paths, lambda: self._take(cursor, transcripts, paths, state))
        self.state, self._last = state, self._find_last(transcripts.version())
        self.is_stale = bool(gone) and any(self.spill.iterdir())

    def _find_last(self, version: int) -> Any:
        info = self._storages[TRANSCRIPTS_FOLDER].filesystem.get_file_info(f"_delta_log/{version:020}.json")
        return info.size, info.mtime

    def _is_replaced(self) -> bool:
        """Whether the table was deleted and made anew, or restored from a backup. A log that was cleaned up tells nothing."""
        if not self.state:
            return False
        table_id, version = self.state[TRANSCRIPTS_FOLDER]
        last = self._find_last(version)
        if last == self._last:
            return False
        there = open_table(self._storages[TRANSCRIPTS_FOLDER], TRANSCRIPTS, to_read=True)
        self._last = last  # only now: where there is no table at the moment, the next request must look again
        if there.metadata().id != table_id or there.version() < version or last[0] is not None:
            return True
        return there.version() == version and set(list_files(there)) != self._files

    def _commit(self, cursor: duckdb.DuckDBPyConnection, paths: set[str], change: Callable[[], None]) -> None:
        cursor.execute("BEGIN")
        try:
            change()
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        self._files = paths
        with suppress(duckdb.Error):  # somebody reads just now: the next commit does it
            cursor.execute("CHECKPOINT kept")  # compresses what came, and frees the memory of what is gone

    def _follow(self, name: str) -> DeltaTable | None:
        """A table at its newest version; None where there is none yet."""
        if name in self._tables:
            self._tables[name].update_incremental()
        elif name == TRANSCRIPTS_FOLDER:
            self._tables[name] = open_table(self._storages[name], TRANSCRIPTS, to_read=True)
        elif has_table(storage := self._storages[name]):
            self._tables[name] = DeltaTable(storage.uri, storage_options=dict(storage.delta_options))
        return self._tables.get(name)

    def _take(
        self,
        cursor: duckdb.DuckDBPyConnection,
        transcripts: DeltaTable,
        paths: set[str],
        state: dict[str, tuple[Any, int]],
    ) -> None:
        cursor.execute("CREATE TEMP TABLE touched (key UUID); CREATE TEMP TABLE shared (uri VARCHAR)")
        fingerprints = open_fingerprints(self._storages[FINGERPRINTS_FOLDER])
        is_whole = self._take_promotions(cursor, fingerprints) or not self.state
        if state.get(RECHECKS_FOLDER) != self.state.get(RECHECKS_FOLDER):
            self._take_rechecks(cursor)
        self._take_files(cursor, paths)
        [(touched, rows)] = cursor.execute(
            "SELECT (SELECT count(DISTINCT key) FROM touched), (SELECT count(*) FROM stored_rows)"
        ).fetchall()
        if is_whole or touched > _MOST_TOUCHED * rows:
            written = open_superseded(
                self._storages[SUPERSEDED_FOLDER], transcripts, self._storages[TRANSCRIPTS_FOLDER], read_records(fingerprints)
            )
            _mark(cursor, written)
        else:
            _touch_neighbours(cursor)
            _mark(cursor, None)
        cursor.execute("DROP TABLE touched; DROP TABLE shared")

    def _take_promotions(self, cursor: duckdb.DuckDBPyConnection, fingerprints: ds.Dataset) -> bool:
        """Whether others count than before."""
        before = cursor.execute("SELECT fingerprint, place FROM promoted ORDER BY ALL").fetchall()
        cursor.register("fingerprint_records", fingerprints.to_table())
        cursor.execute(f"DELETE FROM promoted; INSERT INTO promoted BY NAME {VIEWS['promotions']}")
        cursor.unregister("fingerprint_records")
        return before != cursor.execute("SELECT fingerprint, place FROM promoted ORDER BY ALL").fetchall()

    def _take_rechecks(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Touches those of which a recheck now says something else. Only records of recordings that lost sound matter."""
        rechecks = open_rechecks(self._storages[RECHECKS_FOLDER])
        cursor.register("found", rechecks.to_table(columns=[name for name in RECHECKS.names if name in _OF_RECHECKS]))
        cursor.execute(
            f"""
            CREATE TEMP TABLE new_rechecks AS {_RECHECKED};
            INSERT INTO touched SELECT recording_id FROM (
                (FROM new_rechecks EXCEPT FROM kept_rechecks) UNION ALL (FROM kept_rechecks EXCEPT FROM new_rechecks)
            );
            DELETE FROM kept_rechecks; INSERT INTO kept_rechecks FROM new_rechecks; DROP TABLE new_rechecks
            """
        )
        cursor.unregister("found")

    def _take_files(self, cursor: duckdb.DuckDBPyConnection, paths: set[str]) -> None:
        """Replaces the rows of files that are gone by those of files that came."""
        arrived, gone = paths - self._files, self._files - paths
        for name, files in (("arrived", arrived), ("gone", gone)):
            cursor.register(name, pa.table({"file": pa.array(sorted(files), pa.string())}))
        if gone:
            cursor.execute(
                """
                INSERT INTO touched SELECT DISTINCT key FROM stored_rows WHERE file IN (SELECT file FROM gone);
                INSERT INTO shared SELECT DISTINCT uri FROM stored_rows WHERE file IN (SELECT file FROM gone) AND uri <> '';
                DELETE FROM stored_rows WHERE file IN (SELECT file FROM gone)
                """
            )
        if arrived:
            self._insert(cursor, arrived)
            cursor.execute("INSERT INTO touched SELECT DISTINCT key FROM stored_rows WHERE file IN (SELECT file FROM arrived)")
        for name in ("arrived", "gone"):
            cursor.unregister(name)

    def _insert(self, cursor: duckdb.DuckDBPyConnection, files: set[str]) -> None:
        columns = {name: ds.field(*path) for name, path in _READ.items()}
        batches = iter_scan(sorted(files), TRANSCRIPTS, self._storages[TRANSCRIPTS_FOLDER], columns)
        cursor.register("arriving", pa.RecordBatchReader.from_batches(_SCHEMA, batches))
        cursor.execute(f"INSERT INTO stored_rows {_STORED.format(source='arriving')}")
        cursor.unregister("arriving")


def _split(transcripts: DeltaTable) -> Iterator[set[str]]:
    """The files of a table, in parts of many rows."""
    adds = pa.table(transcripts.get_add_actions(flatten=True)).select(["path", "num_records"]).to_pylist()
    some, rows = set[str](), 0
    for add in adds:
        some.add(add["path"])
        rows += add["num_records"] or 0
        if rows >= _ROWS_AT_ONCE:
            yield some
            some, rows = set(), 0
    yield some


def _touch_neighbours(cursor: duckdb.DuckDBPyConnection) -> None:
    """Adds what shares a URI with what is touched, and what shares one with that."""
    more = 1
    while more:
        cursor.execute(
            f"INSERT INTO shared SELECT DISTINCT uri FROM stored_rows {_SOME} AND uri <> '' EXCEPT SELECT uri FROM shared"
        )
        [(more,)] = cursor.execute(
            """
            INSERT INTO touched SELECT DISTINCT key FROM stored_rows
            WHERE uri IN (SELECT uri FROM shared) AND key NOT IN (SELECT key FROM touched)
            """
        ).fetchall()


def _mark(cursor: duckdb.DuckDBPyConnection, written: WrittenDown | None) -> None:
    """Marks the rows that count: of all recordings with what a run wrote down, else of those that are touched."""
    some = _SOME if written is None else ""
    views = {
        "promotions": "SELECT * FROM promoted",
        "recheck_records": "SELECT * FROM kept_rechecks",
        "transcript_rows": _ROWS.format(some=some),
        "recording_versions": _VERSIONS.format(some=some),
        **{name: VIEWS[name] for name in ("superseded", "transcripts", "failures", "recordings")},
        "corrections": _NO_CORRECTIONS,
    }
    if written is not None and written.pairs is not None:
        cursor.register("found", written.pairs.to_table())
        views |= {"superseded_records": _SUPERSEDED, "superseded": STORED_SUPERSEDED}
    if written is not None and written.has_single_keys:
        views["transcripts"] = TRANSCRIPTS_OF_SINGLE_KEYS
    order: tuple[str, ...] = ("promotions", "recheck_records", "transcript_rows", "recording_versions", "superseded_records")
    order += ("superseded", "corrections", "transcripts", "failures", "recordings")
    for name in order:
        if name in views:
            cursor.execute(f"CREATE TEMP VIEW {name} AS {views[name]}")
    cursor.execute("CREATE TEMP TABLE chosen AS SELECT model AS number FROM recordings")
    for name in reversed(order):
        if name in views:
            cursor.execute(f"DROP VIEW {name}")
    with suppress(duckdb.CatalogException):
        cursor.unregister("found")
    where = some or "WHERE true"
    cursor.execute(
        f"""
        UPDATE stored_rows SET counts = false {where} AND counts AND rowid NOT IN (SELECT number FROM chosen);
        UPDATE stored_rows SET counts = true WHERE NOT counts AND rowid IN (SELECT number FROM chosen);
        DROP TABLE chosen
        """
    )


class _Files(ArrowFSWrapper):
    """The files of a table, for DuckDB."""

    protocol = "lake"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("lake://")


def _find_type(path: tuple[str, ...]) -> pa.DataType:
    if path == (_FILE,):
        return pa.string()
    kind: Any = TRANSCRIPTS.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


_SCHEMA = pa.schema([(name, _find_type(path)) for name, path in _READ.items()])
