"""Opening the Delta tables of the lake: made when they are not there, refused when they are not what this version writes."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelines.errors import RunError
from pipelines.lake.schema import SCHEMA_VERSION
from pipelines.lake.storage import Storage

_VERSION_KEY = "dictalake.schemaVersion"
_STATISTICS = ("recording_id", "status", "run_id", "attempt")
# Commits between checkpoints of the log. Each commit reads the log since the last one: at Delta's default of 100 the hundredth
# commit took eight times as long as the first.
_CHECKPOINT_INTERVAL = 25


def open_table(storage: Storage, schema: pa.Schema) -> DeltaTable:
    """The existing table at ``storage``. Raises RunError when there is none, it cannot be reached, or it has another schema."""
    try:
        delta = DeltaTable(storage.uri, storage_options=dict(storage.delta_options))
    except TableNotFoundError:
        raise RunError(f"there is no dictalake table at {storage.uri}: check lake.uri, or run a backfill first") from None
    except (OSError, DeltaError) as error:
        raise _unreachable("open", storage, error) from error
    _check_schema(delta, schema, storage.uri)
    return delta


def open_or_create_table(storage: Storage, schema: pa.Schema, partitions: Sequence[str], description: str) -> DeltaTable:
    """The table at ``storage``, made if it is not there; of several that make it at once one wins and all open the same."""
    options = dict(storage.delta_options)
    try:
        if not DeltaTable.is_deltatable(storage.uri, options):
            _create(storage, schema, partitions, description)
    except (OSError, DeltaError) as error:
        raise _unreachable("make", storage, error) from error
    return open_table(storage, schema)


def _create(storage: Storage, schema: pa.Schema, partitions: Sequence[str], description: str) -> None:
    options = dict(storage.delta_options)
    try:
        DeltaTable.create(
            storage.uri,
            schema,
            partition_by=list(partitions),
            description=description,
            configuration={
                _VERSION_KEY: str(SCHEMA_VERSION),
                "delta.checkpointInterval": str(_CHECKPOINT_INTERVAL),
                # Commits of a long run are many, and each checkpoint names every file.
                "delta.logRetentionDuration": "interval 7 days",
                # Compaction and erasure would else write the least and greatest of every column, texts and URIs, into the log.
                "delta.dataSkippingStatsColumns": ",".join(name for name in _STATISTICS if name in schema.names),
            },
            raise_if_key_not_exists=False,  # the key is ours, not Delta's
            storage_options=options,
        )
    except DeltaError:
        if not DeltaTable.is_deltatable(storage.uri, options):  # else another run made it between the look and the making
            raise


def _check_schema(delta: DeltaTable, schema: pa.Schema, uri: str) -> None:
    """Types and requiredness must be the same; documentation and the order of columns may differ."""
    there = pa.schema(delta.schema().to_arrow())
    missing = sorted(set(schema.names) - set(there.names))
    unknown = sorted(set(there.names) - set(schema.names))
    changed = [field.name for field in schema if field.name in there.names and not field.equals(there.field(field.name))]
    version = delta.metadata().configuration.get(_VERSION_KEY, "none")
    if missing or unknown or changed or version != str(SCHEMA_VERSION):
        raise RunError(
            f"the table at {uri} has schema version {version}, this dictalake writes version {SCHEMA_VERSION}: "
            f"columns missing {missing or 'none'}, unknown {unknown or 'none'}, of another type {changed or 'none'}; "
            "use the dictalake that made the table, or give another lake.uri"
        )


def _unreachable(action: str, storage: Storage, error: Exception) -> RunError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RunError(f"cannot {action} the table at {storage.uri}: {reason}; check lake.uri and its credentials")
