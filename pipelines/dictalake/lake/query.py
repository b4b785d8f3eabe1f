"""Reads the lake with DuckDB, pandas or anything else that takes an Arrow dataset:

    import duckdb
    from dictalake.lake.query import open_lake

    transcripts = open_lake("gs://my-hospital-lake/speech")
    duckdb.sql("SELECT status, count(*) FROM transcripts WHERE fingerprint = '3f0c9a12b7de' GROUP BY status").show()

DuckDB passes its columns and its filters on to the dataset. Files of other partitions, and files that their statistics rule
out, stay closed, and columns that the query does not name are not read.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

import duckdb
import pyarrow.dataset as ds

from dictalake.config.sections import Lake
from dictalake.lake.delta import has_table, open_dataset
from dictalake.lake.places import RECHECKS_FOLDER, RUNS_FOLDER, TRANSCRIPTS_FOLDER
from dictalake.lake.rechecks import open_rechecks
from dictalake.lake.schema import RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage, open_storage

SPILL_GB = 20.0
# What DuckDB may take of the machine, and nothing that it would fetch of its own accord or leave in the home folder.
_BOUNDS: dict[str, str | int | float | list[str]] = {
    "memory_limit": "50%",
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
}

# A run's first and last record fill different columns; where both fill one, the last counts.
_RUN_COLUMNS = ",\n            ".join(
    f'arg_max("{name}", "at") AS "{name}"' for name in RUNS.names if name not in ("run_id", "event", "at")
)

VIEWS = {
    # The best good row of each recording: the one that lost least sound, and of equal ones the newest, whatever the model.
    # Losses are equal to a tenth of a second. Rows of version 5 and before do not say what they lost and come last. Recordings
    # without a good row are missing.
    # A row knows nothing of what its loader dropped in silence. So where a recheck found that a row of a recording lost sound,
    # its measures count for the rows that it compared: such a row comes behind the one that was made in its place, unless that
    # lost more than the recheck measured. Only the rows of those few recordings meet one in the join.
    # The order takes columns of ``quality`` and ``provenance`` alone: ``source`` holds long strings, which nearly every query
    # would have to read. They are taken out of their structs before the join, which would copy the structs. The month is a key
    # too, because DuckDB can skip files by keys alone. A recording has one month, except where an object's date changed and its
    # version did not (archive.time_zone, the same bytes copied to S3 again): then it has a row in each month.
    "transcripts": """
        SELECT h.* EXCLUDE (row_lost_s, made_at)
        FROM (
            SELECT *, quality.lost_s AS row_lost_s, provenance.transcribed_at AS made_at FROM history WHERE status = 'ok'
        ) AS h LEFT JOIN (
            SELECT recording_id, fingerprint, attempt, verdict, missing_s FROM recheck_records
            WHERE recording_id IN (SELECT recording_id FROM recheck_records WHERE verdict = 'lost')
            QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint, attempt ORDER BY loader DESC, "at" DESC) = 1
        ) AS r ON r.recording_id = h.recording_id AND r.fingerprint = h.fingerprint AND r.attempt = h.attempt
        QUALIFY row_number() OVER (
            PARTITION BY h.recording_id, h.recorded_month
            ORDER BY round(CASE
                    WHEN r.verdict = 'lost' THEN CASE WHEN h.row_lost_s > r.missing_s THEN h.row_lost_s ELSE r.missing_s END
                    WHEN r.verdict = 'complete' THEN coalesce(h.row_lost_s, r.missing_s)
                    ELSE h.row_lost_s
                END, 1) NULLS LAST,
                CASE WHEN r.verdict = 'lost' THEN 0 ELSE 1 END DESC, h.made_at DESC, h.attempt DESC
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
    # What `dictalake recheck` found: the newest record of each row that it compared with what can be read today.
    "rechecks": """
        SELECT * FROM recheck_records
        QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint, attempt ORDER BY loader DESC, "at" DESC) = 1
    """,
    # Transcripts that lack sound, as they say themselves or a recheck found, the worst first; those of which nobody can tell
    # how much come before all. A length holds the silence that stands for a hole, but nothing for an end that was cut off.
    "incomplete": """
        SELECT recording_id, fingerprint, recorded_month, attempt, uri, lost_s,
            CASE WHEN duration_s > 0 AND lost_s IS NOT NULL THEN least(lost_s / duration_s, 1) END AS share,
            repairs, duration_s, found_by
        FROM (
            SELECT t.recording_id, t.fingerprint, t.recorded_month, t.attempt, t.source.uri AS uri,
                CASE WHEN r.recording_id IS NULL THEN t.quality.lost_s ELSE r.missing_s END AS lost_s,
                CASE WHEN r.recording_id IS NULL THEN t.quality.repairs ELSE r.repairs END AS repairs,
                coalesce(r.duration_s, t.quality.duration_s) AS duration_s,
                CASE WHEN r.recording_id IS NULL THEN 'row' ELSE 'recheck' END AS found_by
            FROM transcripts AS t LEFT JOIN rechecks AS r
                ON r.recording_id = t.recording_id AND r.fingerprint = t.fingerprint AND r.attempt = t.attempt
                AND r.verdict = 'lost'
            WHERE t.quality.lost_s > 0 OR r.recording_id IS NOT NULL
        ) AS found
        ORDER BY lost_s DESC NULLS FIRST, recording_id
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


def connect(
    uri: str, storage_options: Mapping[str, str] | None = None, spill_gb: float = SPILL_GB
) -> duckdb.DuckDBPyConnection:
    """A DuckDB with the views, as the lake is now: ``history`` (every row), ``transcripts`` (the best good row of each
    recording), ``transcript_words`` and ``transcript_sections`` (a row for each word and section of them), ``failures`` (what
    failed at its last attempt), ``incomplete`` (transcripts that lack sound), ``rechecks`` (what was read again) and ``runs``
    (a row for each run). Times are in UTC. Raises as ``open_lake``.

    It takes half of the memory, then up to ``spill_gb`` of a folder for temporary files that only its owner can enter.
    """
    database = duckdb.connect(config={**_BOUNDS, "max_temp_directory_size": f"{spill_gb:g}GB"})
    spill = mkdtemp(prefix="dictalake-query-")
    weakref.finalize(database, shutil.rmtree, spill, ignore_errors=True)
    database.execute("SET temp_directory = ?", [spill])
    database.execute("SET TimeZone = 'UTC'")
    database.register("history", open_lake(uri, storage_options))
    database.register("run_records", _open_runs(_open_folder(uri, storage_options, RUNS_FOLDER)))
    database.register("recheck_records", open_rechecks(_open_folder(uri, storage_options, RECHECKS_FOLDER)))
    for name, query in VIEWS.items():
        database.execute(f"CREATE TEMP VIEW {name} AS {query}")
    return database


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


def _open_runs(storage: Storage) -> ds.Dataset:
    """The run records; empty for a lake that our runs did not write."""
    return open_dataset(storage, RUNS) if has_table(storage) else ds.dataset(RUNS.empty_table())
