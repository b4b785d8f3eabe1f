"""Reading the lake from DuckDB, pandas or anything else that takes an Arrow dataset. Three lines:

    import duckdb
    transcripts = open_lake("gs://lake/speech")
    duckdb.sql("SELECT status, count(*) FROM transcripts WHERE fingerprint = '3f0c…' GROUP BY status").show()

DuckDB hands its column list and its filters to the dataset: files of other partitions, and files whose statistics rule them
out, are not opened; other columns are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.dataset as ds

from pipelines.config import Lake
from pipelines.lake.delta import open_table
from pipelines.lake.schema import TRANSCRIPTS
from pipelines.lake.staging import TRANSCRIPTS_FOLDER
from pipelines.lake.storage import open_storage


def open_lake(uri: str, storage_options: Mapping[str, str] | None = None) -> ds.Dataset:
    """The committed transcripts of the lake at ``uri``, as they are now: later commits need a new call.

    ``storage_options`` are those of ``lake.storage_options``. Raises ConfigError for a bad ``uri`` or option, RunError when
    there is no lake, it cannot be reached, or another version of dictalake wrote it.
    """
    lake = Lake.model_validate({"uri": uri, "storage_options": dict(storage_options or {})})
    storage = open_storage(lake, TRANSCRIPTS_FOLDER)
    return open_table(storage, TRANSCRIPTS).to_pyarrow_dataset(filesystem=storage.filesystem)
