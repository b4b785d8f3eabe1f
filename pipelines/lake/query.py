"""Reading the lake from DuckDB, pandas or anything else that takes an Arrow dataset. Three lines:

    import duckdb
    transcripts = open_lake("gs://lake/speech")
    duckdb.sql("SELECT status, count(*) FROM transcripts WHERE fingerprint = '3f0c…' GROUP BY status").show()

DuckDB hands its column list and its filters to the dataset: files of other partitions, and files whose statistics rule them
out, are not opened; other columns are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow.dataset as ds

from pipelines.config import Lake
from pipelines.lake.delta import open_table
from pipelines.lake.schema import TRANSCRIPTS
from pipelines.lake.staging import TRANSCRIPTS_FOLDER
from pipelines.lake.storage import open_storage

VIEWS = {
    # The newest good row of each recording, of whatever model; a recording that never was transcribed is not among them.
    "transcripts": """
        SELECT * FROM history WHERE status = 'ok'
        QUALIFY row_number() OVER (PARTITION BY recording_id ORDER BY provenance.transcribed_at DESC, attempt DESC) = 1
    """,
    # Recordings whose last attempt under a fingerprint failed.
    "failures": """
        SELECT * FROM history
        QUALIFY row_number() OVER (PARTITION BY recording_id, fingerprint ORDER BY attempt DESC) = 1 AND status = 'failed'
    """,
}


def open_lake(uri: str, storage_options: Mapping[str, str] | None = None) -> ds.Dataset:
    """The committed transcripts of the lake at ``uri``, as they are now: later commits need a new call.

    ``storage_options`` are those of ``lake.storage_options``. Raises ConfigError for a bad ``uri`` or option, RunError when
    there is no lake, it cannot be reached, or another version of dictalake wrote it.
    """
    lake = Lake.model_validate({"uri": uri, "storage_options": dict(storage_options or {})})
    storage = open_storage(lake, TRANSCRIPTS_FOLDER)
    return open_table(storage, TRANSCRIPTS).to_pyarrow_dataset(filesystem=storage.filesystem)


def connect(uri: str, storage_options: Mapping[str, str] | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB with ``history`` (every row), ``transcripts`` (the newest good row of each recording) and ``failures`` (what
    failed at its last attempt), as the lake is now. Raises as ``open_lake``."""
    database = duckdb.connect()
    database.register("history", open_lake(uri, storage_options))
    for name, query in VIEWS.items():
        database.execute(f"CREATE TEMP VIEW {name} AS {query}")
    return database
