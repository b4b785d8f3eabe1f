"""The rows of a lake in few columns, in memory: what the lists and counts of the pages read.

A page of a list must not wait until a million rows are read from their files. So the columns that lists show and filter are
kept, and each request takes in what the table got or lost since: files, by the log of the table. The views of ``lake/views.py``
make the rest, so a list shows what ``dictalake query`` would. Nothing is written to a disk but what DuckDB spills, in a private
folder.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from fsspec.implementations.arrow import ArrowFSWrapper

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.corrections import Corrections
from dictalake.lake.delta import has_table, open_table
from dictalake.lake.fingerprints import open_fingerprints, read_records
from dictalake.lake.gone_rows import drop_rows_of_gone
from dictalake.lake.places import (
    ACCESSES_FOLDER,
    CORRECTIONS_FOLDER,
    FINGERPRINTS_FOLDER,
    PLACES,
    RECHECKS_FOLDER,
    RUNS_FOLDER,
    SUPERSEDED_FOLDER,
    TRANSCRIPTS_FOLDER,
)
from dictalake.lake.rechecks import open_rechecks
from dictalake.lake.row_search import iter_scan, list_files
from dictalake.lake.runs import RunLog
from dictalake.lake.schema import CORRECTIONS, TRANSCRIPTS
from dictalake.lake.storage import open_storage
from dictalake.lake.superseded import open_superseded
from dictalake.lake.views import STORED_SUPERSEDED, VIEWS

_MEMORY = "450MB"
_FILE = "path of the file"  # the column that ``iter_scan`` adds
# Column of ``stored_rows`` → where it stands in a row of the table.
_COLUMNS: dict[str, tuple[str, ...]] = {
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
    "repairs": ("quality", "repairs"),
    "model_id": ("provenance", "model_id"),
    "transcribed_at": ("provenance", "transcribed_at"),
    "file": (_FILE,),
}
# The rows as the views want them, in structs.
_ROWS = """
    SELECT recording_id, status, run_id, attempt, confidence, fingerprint, recorded_month, metadata,
        {'uri': uri, 'modified_at': modified_at, 'channels': channels} AS source,
        {'content_datetime': content_datetime} AS dicom, {'reason': reason, 'stage': stage} AS error,
        {'duration_s': duration_s, 'speech_s': speech_s, 'uncovered_speech_s': uncovered_s, 'lost_s': lost_s,
            'repairs': repairs} AS quality,
        {'model_id': model_id, 'transcribed_at': transcribed_at} AS provenance
    FROM stored_rows
"""
_VERSIONS = "SELECT recording_id, fingerprint, uri, modified_at, transcribed_at AS seen_at, reason FROM stored_rows"
_LISTED = """
    SELECT r.*, n.speech_s, round(n.uncovered_s, 1) AS uncovered_s, n.stage
    FROM recordings AS r JOIN stored_rows AS n ON n.recording_id = r.recording_id AND n.fingerprint = r.fingerprint
        AND n.attempt = r.attempt AND n.recorded_month = r.recorded_month
"""
_CHECKED = pa.schema(
    [
        ("recording_id", pa.string()),
        ("checked_by", pa.string()),
        ("checked_at", pa.timestamp("us", "UTC")),
        ("flags", pa.string()),
    ]
)


class Snapshot:
    """``query`` reads the tables ``listed`` (the view recordings, with ``speech_s``, ``uncovered_s`` and ``stage``),
    ``checked`` (corrections that count), ``stored_rows`` (every row) and ``promoted``. The methods raise RunError."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._lock = lake, threading.Lock()
        self.corrections = Corrections(lake)
        self._storages = {
            name: open_storage(lake, name)
            for name in (TRANSCRIPTS_FOLDER, RUNS_FOLDER, FINGERPRINTS_FOLDER, RECHECKS_FOLDER, SUPERSEDED_FOLDER)
        }
        self._delta: DeltaTable | None = None
        self._state: tuple[Any, ...] = ()
        self._checked: Any = "nothing yet"
        self._files: set[str] = set()
        self._database = duckdb.connect(config={"memory_limit": _MEMORY, "autoload_known_extensions": False})
        spill = tempfile.mkdtemp(prefix="dictalake-review-")
        weakref.finalize(self._database, shutil.rmtree, spill, ignore_errors=True)
        self._database.execute("SET temp_directory = ?", [spill])
        self._database.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        self._database.execute("ATTACH ':memory:' AS kept (COMPRESS); USE kept")

    @property
    def version(self) -> tuple[Any, ...]:
        """Changes whenever what ``query`` reads does."""
        return (self._state, self._checked)

    def refresh(self) -> None:
        """Takes in what other processes wrote to the lake."""
        with self._lock:
            try:
                self._refresh_rows()
                self._refresh_checked()
            except (OSError, DeltaError, duckdb.Error, pa.ArrowException) as error:
                raise RunError(f"cannot read the lake: {type(error).__name__}") from error

    def query(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        with self._database.cursor() as cursor:
            cursor.execute("USE kept; SET TimeZone = 'UTC'")
            cursor.execute(sql, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def read_rows(self, recording_id: str) -> list[dict[str, Any]]:
        """All rows of a recording with all columns, the one that counts first. Reads no file without one."""
        found = self.query(
            """
            SELECT n.file FROM stored_rows AS n LEFT JOIN listed AS l
                ON l.recording_id = n.recording_id AND l.fingerprint = n.fingerprint AND l.attempt = n.attempt
            WHERE n.recording_id = ? ORDER BY l.recording_id IS NULL, n.transcribed_at DESC
            """,
            [recording_id],
        )
        storage = self._storages[TRANSCRIPTS_FOLDER]
        rows: list[dict[str, Any]] = []
        for path in dict.fromkeys(str(one["file"]) for one in found):
            rows += _read_of_file(path, recording_id, storage)
        current = self.query("SELECT fingerprint, attempt FROM listed WHERE recording_id = ?", [recording_id])
        keys = [(one["fingerprint"], one["attempt"]) for one in current]
        return sorted(rows, key=lambda row: (row["fingerprint"], row["attempt"]) not in keys)

    def require_there(self, recording_id: str) -> None:
        """Removes what was just written about a recording if it was erased meanwhile."""
        self.refresh()
        if not self.query("SELECT 1 FROM stored_rows WHERE recording_id = ? LIMIT 1", [recording_id]):
            for place in PLACES:
                if place.folder in (CORRECTIONS_FOLDER, ACCESSES_FOLDER):
                    drop_rows_of_gone(self._lake, place)

    def list_runs(self) -> list[dict[str, Any]]:
        """Records of the last runs."""
        if not has_table(self._storages[RUNS_FOLDER]):
            return []
        records = RunLog(self._lake, must_exist=True).read()
        with duckdb.connect() as database:
            database.register("run_records", records)
            answer = database.execute(f"SELECT * FROM ({VIEWS['runs']}) ORDER BY started_at DESC LIMIT 30")
            names = [column[0] for column in answer.description]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def _refresh_rows(self) -> None:
        storage = self._storages[TRANSCRIPTS_FOLDER]
        if self._delta is None:
            self._delta = open_table(storage, TRANSCRIPTS, to_read=True)
        else:
            self._delta.update_incremental()
        others = tuple(
            DeltaTable(self._storages[name].uri, storage_options=dict(self._storages[name].delta_options)).version()
            if has_table(self._storages[name])
            else None
            for name in (FINGERPRINTS_FOLDER, RECHECKS_FOLDER, SUPERSEDED_FOLDER)
        )
        state = (self._delta.metadata().id, self._delta.version(), *others)
        if state == self._state:
            return
        paths = set(list_files(self._delta))
        fingerprints = open_fingerprints(self._storages[FINGERPRINTS_FOLDER])
        written = open_superseded(self._storages[SUPERSEDED_FOLDER], self._delta, storage, read_records(fingerprints))
        with self._database.cursor() as cursor:
            cursor.execute("USE kept; SET TimeZone = 'UTC'; BEGIN")
            try:
                self._take_files(cursor, paths)
                _make_listed(cursor, fingerprints, open_rechecks(self._storages[RECHECKS_FOLDER]), written.pairs)
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
        self._files, self._state = paths, state

    def _take_files(self, cursor: duckdb.DuckDBPyConnection, paths: set[str]) -> None:
        columns = {name: ds.field(*path) for name, path in _COLUMNS.items()}

        def read(files: set[str]) -> pa.RecordBatchReader:
            batches = iter_scan(sorted(files), TRANSCRIPTS, self._storages[TRANSCRIPTS_FOLDER], columns)
            schema = pa.schema([(name, _find_type(path)) for name, path in _COLUMNS.items()])
            return pa.RecordBatchReader.from_batches(schema, batches)

        arriving = read(paths - self._files)  # DuckDB finds it by its name
        if not self._state:
            cursor.register("arriving", arriving)
            cursor.execute("CREATE TABLE stored_rows AS SELECT * FROM arriving")
        else:
            gone = pa.table({"file": pa.array(sorted(self._files - paths), pa.string())})
            cursor.register("gone", gone)
            cursor.execute("DELETE FROM stored_rows WHERE file IN (SELECT file FROM gone)")
            cursor.unregister("gone")
            cursor.register("arriving", arriving)
            cursor.execute("INSERT INTO stored_rows SELECT * FROM arriving")
        cursor.unregister("arriving")

    def _refresh_checked(self) -> None:
        self.corrections.refresh()
        version = self.corrections.version  # before the records: what another thread saves from here on is taken in next time
        if version == self._checked:
            return
        rows = [
            {
                "recording_id": one.recording_id,
                "checked_by": one.who,
                "checked_at": one.at,
                "flags": ", ".join(one.flags) or None,
            }
            for one in self.corrections.list_current()
        ]
        with self._database.cursor() as cursor:
            cursor.execute("USE kept; SET TimeZone = 'UTC'")
            cursor.register("saved", pa.Table.from_pylist(rows, _CHECKED))
            cursor.execute("CREATE OR REPLACE TABLE checked AS SELECT * FROM saved")
            cursor.unregister("saved")
        self._checked = version


def _make_listed(cursor: duckdb.DuckDBPyConnection, fingerprints: Any, rechecks: Any, stored: Any) -> None:
    """The table ``listed``, by the views of the lake over the rows that are kept."""
    views = {"transcript_rows": _ROWS, "recording_versions": _VERSIONS} | {
        name: VIEWS[name] for name in ("promotions", "superseded", "corrections", "transcripts", "failures", "recordings")
    }
    if stored is not None:
        views["superseded"] = STORED_SUPERSEDED
    records = {
        "fingerprint_records": fingerprints.to_table(),
        "recheck_records": rechecks.to_table(),
        "superseded_records": pa.table({"recording_id": [""], "superseded_by": [""], "at": [0]})
        if stored is None
        else stored.to_table(),
        "correction_records": CORRECTIONS.empty_table(),  # the list needs no texts
    }
    for name, table in records.items():
        cursor.register(name, table)
    for name, sql in views.items():
        cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")
    cursor.execute(f"CREATE OR REPLACE TABLE listed AS {_LISTED}")
    cursor.execute("CREATE OR REPLACE TABLE promoted AS SELECT * FROM promotions")
    for name in reversed(views):
        cursor.execute(f"DROP VIEW {name}")
    for name in records:
        cursor.unregister(name)


def _find_type(path: tuple[str, ...]) -> pa.DataType:
    if path == (_FILE,):
        return pa.string()
    kind: Any = TRANSCRIPTS.field(path[0]).type
    for name in path[1:]:
        kind = kind.field(name).type
    return kind


def _read_of_file(path: str, recording_id: str, storage: Any) -> list[dict[str, Any]]:
    """The rows of a recording in one file. DuckDB decodes the ids, and of the other columns what belongs to them."""
    partitions = dict(part.split("=", 1) for part in path.split("/")[:-1] if "=" in part)
    with duckdb.connect(config={"autoload_known_extensions": False, "autoinstall_known_extensions": False}) as database:
        database.execute("SET TimeZone = 'UTC'; SET threads = 1")
        database.register_filesystem(_Files(storage.filesystem))
        try:
            question = "SELECT * FROM read_parquet($path, hive_partitioning = false) WHERE recording_id = $id"
            found = database.sql(question, params={"path": f"lake://{path}", "id": recording_id}).to_arrow_table()
        except (duckdb.IOException, FileNotFoundError):  # compacted or erased since: the next request knows
            return []
    return [_fill({**row, **partitions}) for row in found.to_pylist()]


class _Files(ArrowFSWrapper):
    """The files of a table, for DuckDB."""

    protocol = "lake"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("lake://")


def _fill(row: dict[str, Any]) -> dict[str, Any]:
    """``row`` with null in columns and fields that an older dictalake did not write."""
    filled = {**dict.fromkeys(TRANSCRIPTS.names), **row}
    for field in TRANSCRIPTS:
        if pa.types.is_struct(field.type) and filled[field.name] is not None:
            names = [field.type.field(place).name for place in range(field.type.num_fields)]
            filled[field.name] = {**dict.fromkeys(names), **filled[field.name]}
    return filled
