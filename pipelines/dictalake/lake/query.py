"""Reads the lake with DuckDB, pandas or anything else that takes an Arrow dataset:

    import duckdb
    from dictalake.lake.query import open_lake

    transcripts = open_lake("gs://my-hospital-lake/speech")
    duckdb.sql("SELECT status, count(*) FROM transcripts WHERE fingerprint = '3f0c9a12b7de' GROUP BY status").show()

DuckDB passes its columns and its filters on to the dataset. Files of other partitions, and files that their statistics rule
out, stay closed, and columns that the query does not name are not read.
"""

from __future__ import annotations

import re
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import mkdtemp

import duckdb
import pyarrow.dataset as ds

from dictalake import stops
from dictalake.config.sections import Lake
from dictalake.lake.corrections import open_accesses, open_corrections
from dictalake.lake.delta import has_table, make_dataset, open_dataset, open_table
from dictalake.lake.finding_rows import open_findings
from dictalake.lake.fingerprints import open_fingerprints, read_records
from dictalake.lake.places import (
    ACCESSES_FOLDER,
    CORRECTIONS_FOLDER,
    FINDINGS_FOLDER,
    FINGERPRINTS_FOLDER,
    RECHECKS_FOLDER,
    RUNS_FOLDER,
    SUPERSEDED_FOLDER,
    TRANSCRIPTS_FOLDER,
)
from dictalake.lake.rechecks import open_rechecks
from dictalake.lake.schema import RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.superseded import RecordingVersions, open_superseded
from dictalake.lake.views import STORED_SUPERSEDED, TRANSCRIPTS_OF_SINGLE_KEYS
from dictalake.lake.views import VIEWS as VIEWS


def _open_runs(storage: Storage) -> ds.Dataset:
    """The run records; empty for a lake that our runs did not write."""
    return open_dataset(storage, RUNS) if has_table(storage) else ds.dataset(RUNS.empty_table())


# What the views read beside the transcripts: the folder, and what opens it.
_TABLES: dict[str, tuple[str, Callable[[Storage], ds.Dataset]]] = {
    "run_records": (RUNS_FOLDER, _open_runs),
    "recheck_records": (RECHECKS_FOLDER, open_rechecks),
    "fingerprint_records": (FINGERPRINTS_FOLDER, open_fingerprints),
    "correction_records": (CORRECTIONS_FOLDER, open_corrections),
    "access_records": (ACCESSES_FOLDER, open_accesses),
    "finding_rows": (FINDINGS_FOLDER, open_findings),
}
_NAMES = frozenset({*VIEWS, *_TABLES, "transcript_rows"})
SPILL_GB = 20.0
# What DuckDB may take of the machine, and nothing that it would fetch of its own accord or leave in the home folder.
_BOUNDS: dict[str, str | int | float | list[str]] = {
    "memory_limit": "50%",
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
}


def open_lake(uri: str, storage_options: Mapping[str, str] | None = None) -> ds.Dataset:
    """The committed transcripts of the lake at ``uri`` as they are now; call it again to see later commits.

    ``storage_options`` are those of ``lake.storage_options``. Raises ConfigError for a bad ``uri`` or option, and RunError if
    there is no lake, it cannot be reached, or its schema is none of dictalake's. Columns that an older dictalake did not
    write are null.
    """
    return open_dataset(_open_folder(uri, storage_options, TRANSCRIPTS_FOLDER), TRANSCRIPTS)


def connect(
    uri: str,
    storage_options: Mapping[str, str] | None = None,
    spill_gb: float = SPILL_GB,
    *,
    names: Iterable[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB with the views of ``lake/views.py``, as the lake is now. Times are in UTC. Raises as ``open_lake``.

    It takes half of the memory, then up to ``spill_gb`` of a folder for temporary files that only its owner can enter. With
    ``names`` there are only these views and tables and those that they read: the other tables of the lake stay closed.
    """
    wanted = None if names is None else find_all_read(names)
    database = stops.interrupted_by_stops(duckdb.connect(config={**_BOUNDS, "max_temp_directory_size": f"{spill_gb:g}GB"}))
    spill = mkdtemp(prefix="dictalake-query-")
    weakref.finalize(database, shutil.rmtree, spill, ignore_errors=True)
    database.execute("SET temp_directory = ?", [spill])
    database.execute("SET TimeZone = 'UTC'")
    views = dict(VIEWS)
    _register_tables(database, uri, storage_options, wanted, views)
    for name, query in views.items():
        if wanted is None or name in wanted:
            database.execute(f"CREATE TEMP VIEW {name} AS {query}")
    return database


def find_all_read(names: Iterable[str]) -> frozenset[str]:
    """The names, and all views and tables that these views read."""
    found, open_names = set[str](), list(names)
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names += find_names(VIEWS.get(name, ""))
    return frozenset(found)


def find_names(sql: str) -> frozenset[str]:
    """The views and tables that ``connect`` offers and whose names stand in the SQL, be it as something else."""
    return frozenset(re.findall(r"\w+", sql.lower())) & _NAMES


def _register_tables(
    database: duckdb.DuckDBPyConnection,
    uri: str,
    storage_options: Mapping[str, str] | None,
    wanted: frozenset[str] | None,
    views: dict[str, str],
) -> None:
    """Registers what the views read, and puts the quicker form of two views where the lake allows it."""
    transcripts = _open_folder(uri, storage_options, TRANSCRIPTS_FOLDER)
    # First of all: unlike the look whether there is a table, it lets other threads go on while a storage does not answer.
    table = open_table(transcripts, TRANSCRIPTS, to_read=True)
    rows = make_dataset(table, transcripts, TRANSCRIPTS)
    database.register("transcript_rows", rows)
    opened = {
        name: open_records(_open_folder(uri, storage_options, folder))
        for name, (folder, open_records) in _TABLES.items()
        if wanted is None or name in wanted
    }
    for name, records in opened.items():
        database.register(name, records)
    if wanted is None or "superseded" in wanted:
        database.register("recording_versions", RecordingVersions(rows))
        known = read_records(opened["fingerprint_records"])
        written = open_superseded(_open_folder(uri, storage_options, SUPERSEDED_FOLDER), table, transcripts, known)
        if written.pairs is not None:
            database.register("superseded_records", written.pairs)
            views["superseded"] = STORED_SUPERSEDED
        if written.has_single_keys:
            views["transcripts"] = TRANSCRIPTS_OF_SINGLE_KEYS


def connect_locked(
    uri: str, storage_options: Mapping[str, str] | None = None, spill_gb: float = SPILL_GB
) -> duckdb.DuckDBPyConnection:
    """As ``connect``, and locked as ``lock`` does."""
    database = connect(uri, storage_options, spill_gb)
    lock(database)
    return database


def lock(database: duckdb.DuckDBPyConnection, spill: Path | None = None) -> None:
    """Restricts SQL to the registered views: no files, no network, no extensions, no Python variables, and no way back.

    Results that do not fit into memory are spilled below the folder ``spill``, else where ``connect`` has them spilled.
    """
    if spill is not None:
        database.execute("SET temp_directory = ?", [str(spill)])
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")


def _open_folder(uri: str, storage_options: Mapping[str, str] | None, folder: str) -> Storage:
    return open_storage(Lake.model_validate({"uri": uri, "storage_options": dict(storage_options or {})}), folder)
