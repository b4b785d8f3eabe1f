"""Reads the lake with DuckDB, pandas or anything else that takes an Arrow dataset:

    import duckdb
    from dictalake.lake.query import open_lake

    transcripts = open_lake("gs://my-hospital-lake/speech")
    duckdb.sql("SELECT status, count(*) FROM transcripts WHERE fingerprint = '3f0c9a12b7de' GROUP BY status").show()

DuckDB passes its columns and its filters on to the dataset. Files of other partitions, and files that their statistics rule
out, stay closed, and columns that the query does not name are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import gettempdir
from uuid import uuid4

import duckdb
import pyarrow.dataset as ds

from dictalake.config.sections import Lake
from dictalake.lake.delta import has_table, open_dataset
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.schema import RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage

# A run's first and last record fill different columns; where both fill one, the last counts.
_RUN_COLUMNS = ",\n            ".join(
    f'arg_max("{name}", "at") AS "{name}"' for name in RUNS.names if name not in ("run_id", "event", "at")
)

VIEWS = {
    # The newest good row of each recording, whatever the model; recordings without a good row are missing. The month is a key
    # too, because DuckDB can skip files by keys alone. A recording has one month, except where an object's date changed and its
    # version did not (archive.time_zone, the same bytes copied to S3 again): then it has a row in each month.
    "transcripts": """
        SELECT * FROM history WHERE status = 'ok'
        QUALIFY row_number() OVER (
            PARTITION BY recording_id, recorded_month ORDER BY provenance.transcribed_at DESC, attempt DESC
        ) = 1
    """,
    # Recordings whose last attempt under a fingerprint failed.
    "failures": """
        SELECT * FROM history
        QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint ORDER BY attempt DESC) = 1 AND status = 'failed'
    """,
    # A row per word of transcripts; position counts from 1, the other columns are those of schema.TRANSCRIPTS' words.
    "transcript_words": """
        SELECT recording_id, fingerprint, recorded_month,
            generate_subscripts(words, 1) AS position, unnest(words, recursive := true)
        FROM transcripts
    """,
    # A row per section of transcripts, likewise.
    "transcript_sections": """
        SELECT recording_id, fingerprint, recorded_month,
            generate_subscripts(sections, 1) AS position, unnest(sections, recursive := true)
        FROM transcripts
    """,
    # A row per run. An unfinished run is still at work or was killed: `dictalake runs` tells which.
    "runs": f"""
        SELECT run_id, coalesce(arg_max(event, "at") FILTER (event <> 'started'), 'unfinished') AS state,
            min("at") FILTER (event = 'started') AS started_at, max("at") FILTER (event <> 'started') AS ended_at,
            {_RUN_COLUMNS}
        FROM run_records GROUP BY run_id
    """,
}


def open_lake(uri: str, storage_options: Mapping[str, str] | None = None) -> ds.Dataset:
    """The committed transcripts of the lake at ``uri`` as they are now; call it again to see later commits.

    ``storage_options`` are those of ``lake.storage_options``. Raises ConfigError for a bad ``uri`` or option, and RunError if
    there is no lake, it cannot be reached, or its schema is none of dictalake's. Columns that an older dictalake did not
    write are null.
    """
    return open_dataset(_open_folder(uri, storage_options, TRANSCRIPTS_FOLDER), TRANSCRIPTS)


def connect(uri: str, storage_options: Mapping[str, str] | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views of the lake as it is now. Times are in UTC. Raises as ``open_lake``.

    The views are ``history`` (every row), ``transcripts`` (the newest good row of each recording), ``transcript_words`` and
    ``transcript_sections`` (a row for each word and section of these), ``failures`` (recordings whose last attempt failed)
    and ``runs`` (a row for each run).
    """
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    database.register("history", open_lake(uri, storage_options))
    database.register("run_records", _open_runs(_open_folder(uri, storage_options, "runs")))
    for name, query in VIEWS.items():
        database.execute(f"CREATE TEMP VIEW {name} AS {query}")
    return database


def connect_locked(uri: str, storage_options: Mapping[str, str] | None = None) -> duckdb.DuckDBPyConnection:
    """As ``connect``, and locked as ``lock`` does. DuckDB makes its folder for spilled results when it needs it, and removes
    it when the connection is closed."""
    database = connect(uri, storage_options)
    lock(database, Path(gettempdir()) / f"dictalake-query-{uuid4().hex}")
    return database


def lock(database: duckdb.DuckDBPyConnection, spill: Path) -> None:
    """Restricts SQL to the registered views: no files, no network, no extensions, no Python variables, and no way back.

    Results that do not fit into memory are spilled below the folder ``spill``.
    """
    database.execute("SET temp_directory = ?", [str(spill)])
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")


def _open_folder(uri: str, storage_options: Mapping[str, str] | None, folder: str) -> Storage:
    return open_storage(Lake.model_validate({"uri": uri, "storage_options": dict(storage_options or {})}), folder)


def _open_runs(storage: Storage) -> ds.Dataset:
    """The run records; empty for a lake that our runs did not write."""
    return open_dataset(storage, RUNS) if has_table(storage) else ds.dataset(RUNS.empty_table())
