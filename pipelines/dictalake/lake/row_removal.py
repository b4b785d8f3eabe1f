"""Takes the rows of recordings out of a table's files, and writes into the log what an erasure must tell writers at work.

A file that holds such rows is read and written again without them, a few thousand rows at a time; the others are not touched.
One version of the log then names the new files in place of the old ones. It holds where no other writer has replaced these
meanwhile: what did not change is not read again. delta-rs does the same, with a list of all files of the table in memory, and
does it where a table asks for more than the first versions of Delta's protocol.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.claims import LeaseStore
from dictalake.lake.contract import without_docs
from dictalake.lake.delta import STATISTICS, open_table, read_parquet, retry_on_conflict
from dictalake.lake.encodings import make_options
from dictalake.lake.maintenance import WRITER
from dictalake.lake.places import Place
from dictalake.lake.row_search import list_folders
from dictalake.lake.storage import Storage, open_storage
from dictalake.lake.table import ERASURE_MARK
from dictalake.lake.table_log import TableLog

_FILES_AT_ONCE = 50  # of one version of the log
_ROWS_AT_ONCE, _ROWS_OF_A_GROUP = 2048, 16_384
_IDS_AT_ONCE = 500


def write_mark(lake: Lake, place: Place, receipt_id: str) -> None:
    """Writes a version of the table's log that refuses every commit under way, so that its writer reads the tombstones."""
    assert place.schema is not None
    storage, schema = open_storage(lake, place.folder), place.schema

    def mark() -> None:
        log = TableLog(storage, schema)
        # A run of a new model has no row yet.
        fingerprints = {list_folders(path).get("fingerprint", "") for path in log.paths()}
        fingerprints |= {seen.lease.fingerprint for seen in LeaseStore(lake).read()}
        marks = {}
        for fingerprint in sorted(fingerprints):
            last = log.transaction_version(fingerprint)
            marks[fingerprint] = 0 if last is None else last + 1
        info = {ERASURE_MARK: receipt_id}
        if not log.is_plain:
            turns = [Transaction(*turn) for turn in marks.items()]
            open_table(storage, schema).create_write_transaction(
                [],
                mode="append",
                schema=schema,
                partition_by=list(place.partitions),
                commit_properties=CommitProperties(custom_metadata=info, app_transactions=turns),
            )
        elif not log.append("WRITE", info, [{"txn": {"appId": name, "version": turn}} for name, turn in marks.items()]):
            raise CommitFailedError("another writer came first")

    retry_on_conflict(None, mark)


def remove_rows(storage: Storage, place: Place, column: str, ids: Collection[str], paths: Collection[str], mark: str) -> int:
    """Removes the rows whose ``column`` is one of ``ids`` from those of ``paths`` that the table has. Deletes these files at
    once; returns how many. ``mark`` stands in the log. Raises RunError, OSError, DeltaError."""
    assert place.schema is not None
    deleted, info = 0, {ERASURE_MARK: mark}
    named = sorted(paths)
    for start in range(0, len(named), _FILES_AT_ONCE):
        some = named[start : start + _FILES_AT_ONCE]
        log = TableLog(storage, place.schema)
        if log.is_plain:
            changes = {add["path"]: _rewrite(storage, place, add, column, ids) for add in log.find_adds(some)}
            retry_on_conflict(None, lambda: _commit(storage, place, changes, info))  # noqa: B023
        else:
            _remove_by_delta_rs(storage, place, column, ids, some, info)
        used = TableLog(storage, place.schema).find(some)
        deleted += delete_files(storage, set(some) - used)
    return deleted


def delete_files(storage: Storage, paths: Collection[str]) -> int:
    """Deletes files that are out of use, by their paths in the log."""
    for path in paths:
        with suppress(FileNotFoundError):
            storage.filesystem.delete_file(unquote(path))
    return len(paths)


def _commit(storage: Storage, place: Place, changes: Mapping[str, list[dict[str, Any]]], info: Mapping[str, str]) -> None:
    """Commits those changes whose file is still one of the table. Raises CommitFailedError if another writer came first."""
    assert place.schema is not None
    log = TableLog(storage, place.schema)
    actions = [action for path in sorted(log.find(changes)) for action in changes[path]]
    if actions and not log.append("DELETE", info, actions):
        raise CommitFailedError("another writer came first")


def _rewrite(storage: Storage, place: Place, add: Mapping[str, Any], column: str, ids: Collection[str]) -> list[dict[str, Any]]:
    """The actions that put a file without the rows of ``ids`` in the place of a file. Raises RunError where rows get lost."""
    assert place.schema is not None
    schema = without_docs(pa.schema([field for field in place.schema if field.name not in place.partitions]))
    rows, named = read_parquet([unquote(add["path"])], schema, storage), pa.array(sorted(ids), pa.string())
    is_gone = ds.field(column).is_valid() & ds.field(column).isin(named)
    gone = rows.count_rows(is_gone)
    if not gone:
        return []
    partition, now_ms = dict(add["partitionValues"] or {}), time.time_ns() // 1_000_000
    remove = {"path": add["path"], "deletionTimestamp": now_ms, "dataChange": True, "partitionValues": partition}
    if add["path"].count("/") and "size" in add:
        remove |= {"extendedFileMetadata": True, "size": add["size"]}
    batches = rows.to_batches(
        filter=ds.field(column).is_null() | ~ds.field(column).isin(named),
        batch_size=_ROWS_AT_ONCE,
        batch_readahead=1,
        fragment_readahead=1,
    )
    content, kept = _encode(batches, schema)
    if kept.num_rows + gone != rows.count_rows():
        raise RunError(f"a file of {place.folder}/ has other rows than it had; run the same command again")
    if not kept.num_rows:
        return [{"remove": remove}]
    folder = unquote(add["path"]).rpartition("/")[0]
    path = f"{folder}{'/' if folder else ''}part-{uuid.uuid4().hex}.zstd.parquet"
    storage.write_bytes(path, content)
    new = {
        "path": f"{add['path'].rpartition('/')[0]}{'/' if folder else ''}{path.rpartition('/')[2]}",
        "partitionValues": partition,
        "size": content.size,
        "modificationTime": now_ms,
        "dataChange": True,
        "stats": _make_stats(kept),
    }
    return [{"remove": remove}, {"add": new}]


def _encode(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> tuple[pa.Buffer, pa.Table]:
    """The Parquet file with these rows, and of the rows the columns that the log may know."""
    names = [name for name in STATISTICS if name in schema.names]
    buffer, known = pa.BufferOutputStream(), list[pa.RecordBatch]()
    with pq.ParquetWriter(buffer, schema, **make_options(schema)) as writer:
        for group in _group(batches, schema):
            writer.write_table(group)
            known += group.select(names).to_batches()
    return buffer.getvalue(), pa.Table.from_batches(known, pa.schema([schema.field(name) for name in names]))


def _group(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows as tables of at least so many rows, each of which becomes a row group."""
    waiting, rows = list[pa.RecordBatch](), 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _ROWS_OF_A_GROUP:
            yield pa.Table.from_batches(waiting, schema)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting, schema)


def _make_stats(rows: pa.Table) -> str:
    found = {name: pc.min_max(rows[name]).as_py() for name in rows.column_names}
    return json.dumps(
        {
            "numRecords": rows.num_rows,
            "minValues": {name: limits["min"] for name, limits in found.items() if limits["min"] is not None},
            "maxValues": {name: limits["max"] for name, limits in found.items() if limits["max"] is not None},
            "nullCount": {name: rows[name].null_count for name in rows.column_names},
        }
    )


def _remove_by_delta_rs(
    storage: Storage, place: Place, column: str, ids: Collection[str], paths: Iterable[str], info: Mapping[str, str]
) -> None:
    """The same partition by partition, so that a run that commits to another month does not interfere."""
    assert place.schema is not None
    delta, named = open_table(storage, place.schema), sorted(ids)
    for folders in sorted({tuple(list_folders(path).items()) for path in paths}):
        # A path in the log is a URI, of folders that are escaped already.
        of_partition = [f"{name} = {quote_ids([unquote(unquote(value))])}" for name, value in folders]
        for start in range(0, len(named), _IDS_AT_ONCE):
            of_ids = f"{column} IN ({quote_ids(named[start : start + _IDS_AT_ONCE])})"
            predicate = " AND ".join([*of_partition, of_ids])
            properties = CommitProperties(custom_metadata=dict(info))
            nothing = without_docs(place.schema).empty_table()
            retry_on_conflict(delta, lambda: replace_rows(delta, storage, nothing, predicate, properties))  # noqa: B023


def replace_rows(
    delta: DeltaTable, storage: Storage, rows: pa.Table, predicate: str, properties: CommitProperties | None = None
) -> None:
    """Replaces the rows of ``predicate`` by ``rows``, whose schema has no docs: delta-rs refuses docs in other words.

    ``DeltaTable.delete`` would write strings in a type that pyarrow cannot filter (delta-rs issue 4579).
    """
    write_deltalake(
        delta,
        rows,
        mode="overwrite",
        predicate=predicate,
        commit_properties=properties,
        writer_properties=WRITER,
        storage_options=dict(storage.delta_options),
    )


def quote_ids(ids: Iterable[str]) -> str:
    return ", ".join("'" + one.replace("'", "''") + "'" for one in ids)
