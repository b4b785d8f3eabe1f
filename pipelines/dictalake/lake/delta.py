"""Opens the Delta tables of the lake, and creates them if they are missing.

Writers need a table of their own schema version. Readers also accept older and newer ones within the contract (``contract``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay

from dictalake import retries
from dictalake.errors import RunError
from dictalake.lake.contract import TABLES, Difference, Table, compare
from dictalake.lake.schema import SCHEMA_VERSION
from dictalake.lake.storage import Storage
from dictalake.retries import TABLE_CONFLICT

_APPEND_TRIES = 4

_VERSION_KEY = "dictalake.schemaVersion"
_STATISTICS_KEY = "delta.dataSkippingStatsColumns"
STATISTICS = ("recording_id", "status", "run_id", "attempt")  # the only columns whose values may stand in the log
# Commits between checkpoints of the log. Each commit reads the log since the last checkpoint. With Delta's default of 100 the
# hundredth commit took eight times as long as the first.
_CHECKPOINT_INTERVAL = 25
_RETENTION_KEY, _RETENTION, _RETENTION_BEFORE = "delta.logRetentionDuration", "interval 1 days", "interval 7 days"
_RETENTION_MARK = "dictalake.logRetentionDuration"  # what dictalake set, once: another value, or the same again, is the owner's
_PATIENCE_S = 600.0  # give up when other writers have come first for this long
Result = TypeVar("Result")


class LeanDataset(ds.FileSystemDataset):
    """Files of which no footer stays in memory after they are read: one takes 0.26 MB, and a lake that nobody compacted has a
    file for each block of recordings. DuckDB scans a dataset by ``scanner``.

    Each scan has fragments of its own: one that lets go of its footers takes them from others that read the same fragments at
    the same time, as DuckDB does in a join of a table with itself, and the process crashes.
    """

    def scanner(self, *arguments: Any, **options: Any) -> ds.Scanner:
        fresh = [self.format.make_fragment(one.path, self.filesystem, one.partition_expression) for one in self.get_fragments()]
        files = ds.FileSystemDataset(fresh, self.schema, self.format, self.filesystem)
        return files.scanner(*arguments, **{"cache_metadata": False, **options})

    def to_table(self, *arguments: Any, **options: Any) -> pa.Table:
        return self.scanner(*arguments, **options).to_table()

    def to_batches(self, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        return iter(self.scanner(*arguments, **options).to_batches())

    def count_rows(self, filter: ds.Expression | None = None, **options: Any) -> int:
        return sum(batch.num_rows for batch in self.to_batches(columns=[], filter=filter, **options))


def open_table(storage: Storage, schema: pa.Schema, *, to_read: bool = False) -> DeltaTable:
    """The existing table at ``storage``. Raises RunError if there is none, if it cannot be reached, or if it has another
    schema (with ``to_read``: a schema that breaks the contract).
    """
    delta = _open(storage)
    require_schema(storage, schema, _describe(delta), delta.metadata().configuration, to_read=to_read)
    return delta


def require_schema(
    storage: Storage, schema: pa.Schema, there: Table, configuration: Mapping[str, str], *, to_read: bool = False
) -> None:
    """Raises RunError where ``open_table`` does for a table with these columns and properties."""
    difference, version = _compare(storage, schema, there), _read_version(configuration)
    if not (difference.is_readable if to_read else difference.is_none and version == SCHEMA_VERSION):
        raise _refusal(storage.uri, version, difference)


def open_dataset(storage: Storage, schema: pa.Schema) -> ds.Dataset:
    """The rows of the existing table at ``storage`` with exactly ``schema``. Columns that an older table lacks are null, and
    further columns of a newer one are left out. Raises RunError as ``open_table``.
    """
    return make_dataset(open_table(storage, schema, to_read=True), storage, schema)


def make_dataset(delta: DeltaTable, storage: Storage, schema: pa.Schema) -> ds.Dataset:
    """The same of a table that is open, at its version."""
    rows = delta.to_pyarrow_dataset(filesystem=storage.filesystem)
    # Not replace_schema, which refuses another struct. When Arrow reads a file it finds fields of structs by name, and fills.
    return LeanDataset(list(rows.get_fragments()), schema, rows.format, rows.filesystem)


def read_parquet(paths: Iterable[str], schema: pa.Schema, storage: Storage) -> ds.FileSystemDataset:
    """The rows of these files of a table, with exactly ``schema``. Unlike ``ds.dataset`` it asks for no file before it is
    read."""
    parquet = ds.ParquetFileFormat()
    fragments = [parquet.make_fragment(path, storage.filesystem) for path in paths]
    return LeanDataset(fragments, schema, parquet, storage.filesystem)


def has_table(storage: Storage) -> bool:
    """Whether there is a Delta table at ``storage``. Raises RunError if it cannot be reached."""
    try:
        return bool(DeltaTable.is_deltatable(storage.uri, dict(storage.delta_options)))
    except (OSError, DeltaError) as error:
        raise _unreachable("look for", storage, error) from error


def find_missing(storage: Storage, schema: pa.Schema) -> tuple[str, ...]:
    """The paths of the columns that ``upgrade_table`` would add; changes nothing. Raises RunError as ``upgrade_table``."""
    return _find_missing(storage, schema, _open(storage)).missing


def upgrade_table(storage: Storage, schema: pa.Schema) -> tuple[str, ...]:
    """Gives an older table the properties of a new one and the columns that it lacks, which are null in existing rows.

    Returns the paths of these columns; a table of this version gets none. Rewrites no file. Raises RunError as
    ``open_table``, and if more than columns differ.
    """
    delta = _open(storage)
    difference = _find_missing(storage, schema, delta)
    try:
        # Before the version, since the version admits writers.
        set_properties(delta, schema)
        if difference.is_none and schema_version(delta) == SCHEMA_VERSION:
            return ()
        lacking = {path.partition(".")[0] for path in difference.missing}
        if lacking:  # Delta takes a struct with all its fields and adds those that it lacks
            delta.alter.add_columns([field for field in Schema.from_arrow(schema).fields if field.name in lacking])
        delta.alter.set_table_properties({_VERSION_KEY: str(SCHEMA_VERSION)}, raise_if_not_exists=False)
    except (OSError, DeltaError) as error:
        raise _unreachable("upgrade", storage, error) from error
    return difference.missing


def set_properties(delta: DeltaTable, schema: pa.Schema) -> None:
    """Gives an existing table the properties of a new one that it lacks, except the version.

    Tables of versions 1 to 3 have none. Raises DeltaError and OSError.
    """
    lacking = find_lacking(delta.metadata().configuration, schema)
    if lacking:
        delta.alter.set_table_properties(lacking, raise_if_not_exists=False)
        delta.update_incremental()


def find_lacking(there: Mapping[str, str], schema: pa.Schema) -> dict[str, str]:
    """The properties that a table with those of ``there`` lacks."""
    wanted = _make_properties(schema)
    # The lake's owner may have chosen the intervals. What the log may hold is not the owner's choice.
    is_default_of_before = there.get(_RETENTION_KEY) == _RETENTION_BEFORE and _RETENTION_MARK not in there
    given = {key: value for key, value in there.items() if not (is_default_of_before and key == _RETENTION_KEY)}
    return {key: value for key, value in wanted.items() if key not in given or (key == _STATISTICS_KEY and given[key] != value)}


def clean_up_log(delta: DeltaTable) -> None:
    """Deletes what the log holds past its retention, unless the lake's owner keeps all of it. Raises DeltaError, OSError."""
    if delta.metadata().configuration.get("delta.enableExpiredLogCleanup", "true").lower() == "true":
        delta.cleanup_metadata()


def retry_on_conflict(delta: DeltaTable | None, change: Callable[[], Result]) -> Result:
    """Returns ``change()`` of ``delta``; tries again on the newest version if another writer's commit came first. Without
    ``delta`` the change finds the newest version by itself.

    Raises CommitFailedError if other writers have come first for _PATIENCE_S seconds.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(CommitFailedError),
        stop=stop_after_delay(_PATIENCE_S),
        wait=TABLE_CONFLICT,
        sleep=lambda seconds: retries.pause(seconds),
        before=lambda state: delta.update_incremental() if delta is not None and state.attempt_number > 1 else None,
        reraise=True,
    )
    return retrying(change)


def schema_version(delta: DeltaTable) -> int | None:
    """The schema version of a table; None if the table does not say."""
    return _read_version(delta.metadata().configuration)


def _read_version(configuration: Mapping[str, str]) -> int | None:
    version = configuration.get(_VERSION_KEY, "")
    return int(version) if version.isdigit() else None


def open_or_create_table(storage: Storage, schema: pa.Schema, partitions: Sequence[str], description: str) -> DeltaTable:
    """The table at ``storage``, created if it is missing. If several create it at once, all open the same table."""
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
            configuration={_VERSION_KEY: str(SCHEMA_VERSION), **_make_properties(schema)},
            raise_if_key_not_exists=False,  # the key is ours, not Delta's
            storage_options=options,
        )
    except DeltaError:
        if not DeltaTable.is_deltatable(storage.uri, options):  # else another run has just made it
            raise


def _make_properties(schema: pa.Schema) -> dict[str, str]:
    return {
        "delta.checkpointInterval": str(_CHECKPOINT_INTERVAL),
        # A long run makes many commits, and each checkpoint names every file.
        _RETENTION_KEY: _RETENTION,
        _RETENTION_MARK: _RETENTION,
        # Without it, compaction and erasure would write minimum and maximum of every column into the log, texts and URIs too.
        _STATISTICS_KEY: ",".join(name for name in STATISTICS if name in schema.names),
    }


def _open(storage: Storage) -> DeltaTable:
    try:
        return DeltaTable(storage.uri, storage_options=dict(storage.delta_options))
    except TableNotFoundError:
        raise RunError(f"there is no dictalake table at {storage.uri}: check lake.uri, or run a backfill first") from None
    except (OSError, DeltaError) as error:
        raise _unreachable("open", storage, error) from error


def _describe(delta: DeltaTable) -> Table:
    return Table(pa.schema(delta.schema().to_arrow()), tuple(delta.metadata().partition_columns))


def _compare(storage: Storage, schema: pa.Schema, there: Table) -> Difference:
    """Compares a table with ``schema``. The table's name is its folder's."""
    name = storage.uri.rpartition("/")[2]
    return compare(Table(schema, TABLES[name].partitions), there)


def _find_missing(storage: Storage, schema: pa.Schema, delta: DeltaTable) -> Difference:
    """The difference, if an upgrade can remove it."""
    difference, version = _compare(storage, schema, _describe(delta)), schema_version(delta)
    if version is None or version > SCHEMA_VERSION or difference.unknown or not difference.is_readable:
        raise _refusal(storage.uri, version, difference)
    return difference


def _refusal(uri: str, version: int | None, difference: Difference) -> RunError:
    what = "use the dictalake that made the table, or give another lake.uri"
    if version is not None and version < SCHEMA_VERSION and difference.is_readable and not difference.unknown:
        what = "`dictalake schema --upgrade --lake.uri LAKE` adds them; every writer to the lake must then have this version"
    elif version is not None and version > SCHEMA_VERSION and difference.is_readable:
        what = "a newer dictalake writes to it; update this one (reading works)"
    return RunError(
        f"the table at {uri} has schema version {version or 'none'}, this dictalake writes version {SCHEMA_VERSION}: "
        f"columns {difference}; {what}"
    )


def is_storage_failure(error: BaseException | None) -> bool:
    """Whether the storage of a table failed, here or where a RunError says so: a new try may succeed."""
    return isinstance(error.__cause__ if isinstance(error, RunError) else error, OSError | DeltaError)


def _unreachable(action: str, storage: Storage, error: Exception) -> RunError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RunError(f"cannot {action} the table at {storage.uri}: {reason}; check lake.uri and its credentials")


def append_rows(storage: Storage, rows: pa.Table) -> None:
    """Commits rows to a small table that many processes append to. Raises OSError or DeltaError after a few tries.

    Other processes may set properties or remove checkpoints (delta_log.py): each try opens the table anew.
    """
    options = dict(storage.delta_options)
    retries.call_with_retries(
        lambda: write_deltalake(storage.uri, rows, mode="append", storage_options=options),
        _APPEND_TRIES,
        lambda error: isinstance(error, OSError | DeltaError),
    )
