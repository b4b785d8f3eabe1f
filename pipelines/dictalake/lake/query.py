"""Reading the lake from DuckDB, pandas or anything else that takes an Arrow dataset. Three lines:

    import duckdb
    transcripts = open_lake("gs://lake/speech")
    duckdb.sql("SELECT status, count(*) FROM transcripts WHERE fingerprint = '3f0c…' GROUP BY status").show()

DuckDB hands its column list and its filters to the dataset: files of other partitions, and files whose statistics rule them
out, are not opened; other columns are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow.dataset as ds

from dictalake.config.sections import Lake
from dictalake.lake.delta import has_table, open_dataset
from dictalake.lake.places import TRANSCRIPTS_FOLDER
from dictalake.lake.schema import RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage

# A run's start and its end know different columns; of what both know the end's is taken.
_RUN_COLUMNS = ",\n            ".join(
    f'arg_max("{name}", "at") AS "{name}"' for name in RUNS.names if name not in ("run_id", "event", "at")
)

VIEWS = {
    # The newest good row of each recording, of whatever model; a recording that never was transcribed is not among them. The
    # month is a key too, for only by keys can DuckDB leave out files: a recording has one month, but for an object whose date
    # changed while its version did not (archive.time_zone, the same bytes copied anew to S3), which has a row in each.
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
    # A row per run. One that is unfinished is still at work or was killed: dictalake runs says which.
    "runs": f"""
        SELECT run_id, coalesce(arg_max(event, "at") FILTER (event <> 'started'), 'unfinished') AS state,
            min("at") FILTER (event = 'started') AS started_at, max("at") FILTER (event <> 'started') AS ended_at,
            {_RUN_COLUMNS}
        FROM run_records GROUP BY run_id
    """,
}


def open_lake(uri: str, storage_options: Mapping[str, str] | None = None) -> ds.Dataset:
    """The committed transcripts of the lake at ``uri``, as they are now: later commits need a new call.

    ``storage_options`` are those of ``lake.storage_options``. Raises ConfigError for a bad ``uri`` or option, RunError when
    there is no lake, it cannot be reached, or its schema is none of dictalake's. Columns that an older dictalake did not
    write are null.
    """
    return open_dataset(_open_folder(uri, storage_options, TRANSCRIPTS_FOLDER), TRANSCRIPTS)


def connect(uri: str, storage_options: Mapping[str, str] | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB with ``history`` (every row), ``transcripts`` (the newest good row of each recording), ``transcript_words`` and
    ``transcript_sections`` (a row per word and section of them), ``failures`` (what failed at its last attempt) and ``runs`` (a
    row per run), as the lake is now; times are shown in UTC. Raises as ``open_lake``."""
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    database.register("history", open_lake(uri, storage_options))
    database.register("run_records", _open_runs(_open_folder(uri, storage_options, "runs")))
    for name, query in VIEWS.items():
        database.execute(f"CREATE TEMP VIEW {name} AS {query}")
    return database


def lock(database: duckdb.DuckDBPyConnection, spill: Path) -> None:
    """Leaves SQL nothing but what is registered: no files, no network, no extensions, no variables of Python, and no way back.

    Results that do not fit the memory are spilled below the folder ``spill``.
    """
    database.execute("SET temp_directory = ?", [str(spill)])
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")


def _open_folder(uri: str, storage_options: Mapping[str, str] | None, folder: str) -> Storage:
    return open_storage(Lake.model_validate({"uri": uri, "storage_options": dict(storage_options or {})}), folder)


def _open_runs(storage: Storage) -> ds.Dataset:
    """A lake whose rows no run of ours wrote has no runs."""
    return open_dataset(storage, RUNS) if has_table(storage) else ds.dataset(RUNS.empty_table())
