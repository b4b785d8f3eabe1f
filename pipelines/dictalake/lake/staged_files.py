"""The worker's side of writing: rows become Parquet files with random names below the table's folder, not yet committed.

Readers do not see them. A file whose block was tried again, or whose driver died, stays invisible until vacuum removes it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dictalake.config.sections import Lake
from dictalake.errors import IdTaken
from dictalake.lake.row_tables import TRANSCRIPT_ROWS, RowTable
from dictalake.lake.schema import PARTITIONS, conform
from dictalake.lake.storage import Storage, open_storage

FILE_SCHEMA = TRANSCRIPT_ROWS.file_schema

# Columns whose minimum and maximum let a reader skip whole files.
_STATISTICS = ("recording_id", "status", "run_id", "attempt")
_SAFE = r"^[A-Za-z0-9_.-]+$"

STAGED = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified_ms", pa.int64(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("recorded_month", pa.string(), nullable=False),
        pa.field("recording_ids", pa.list_(pa.string()), nullable=False),
        pa.field("attempts", pa.list_(pa.int32()), nullable=False),
        pa.field("statuses", pa.list_(pa.string()), nullable=False),
        pa.field("archive_ids", pa.list_(pa.string()), nullable=False),
        pa.field("archive_rows", pa.list_(pa.int32()), nullable=False),
        pa.field("stats", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class StagedFile:
    """A written, uncommitted Parquet file, with all that a commit needs, so that nobody has to read the file again.

    ``path`` is relative to the table. The lists are columns of its rows in their order. ``stats`` is Delta's JSON with the row
    count, minima and maxima.
    """

    path: str
    size_bytes: int
    modified_ms: int
    fingerprint: str
    recorded_month: str
    recording_ids: tuple[str, ...]
    attempts: tuple[int, ...]
    statuses: tuple[str, ...]
    archive_ids: tuple[str | None, ...]
    archive_rows: tuple[int | None, ...]
    stats: str

    @property
    def rows(self) -> int:
        return len(self.recording_ids)

    def to_row(self) -> dict[str, Any]:
        """One row of a table with the schema STAGED."""
        return asdict(self)

    def to_add(self) -> dict[str, Any]:
        """The action that adds the file to the table, for Delta's log. No name in it needs an escape (``_SAFE``)."""
        return {
            "path": self.path,
            "partitionValues": {"fingerprint": self.fingerprint, "recorded_month": self.recorded_month},
            "size": self.size_bytes,
            "modificationTime": self.modified_ms,
            "dataChange": True,
            "stats": self.stats,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StagedFile:
        """The reverse of ``to_row``; takes the lists that Arrow makes of tuples."""
        values: dict[str, Any] = {field.name: row[field.name] for field in fields(cls)}
        for name in ("recording_ids", "attempts", "statuses", "archive_ids", "archive_rows"):
            values[name] = tuple(values[name])
        return cls(**values)


def make_staged_table(files: Sequence[StagedFile]) -> pa.Table:
    """What a writing stage returns: one row per file, schema STAGED, also when there is none."""
    return pa.Table.from_pylist([file.to_row() for file in files], schema=STAGED)


def write_staged(
    table: pa.Table, lake: Lake, on_retry: Callable[[], None] | None = None, of: RowTable = TRANSCRIPT_ROWS
) -> list[StagedFile]:
    """Writes ``table`` (the schema of ``of``) as one zstd Parquet file per partition, and returns the files. Commits nothing.

    A write that the storage refuses is tried again, and ``on_retry`` is called each time. Raises ValueError if the rows do not
    fit the schema, and OSError if the lake cannot be written.
    """
    table = conform(table, of.schema)
    storage = open_storage(lake, of.folder)
    partitions = table.select(PARTITIONS).group_by(list(PARTITIONS)).aggregate([]).to_pylist()
    staged = []
    for partition in sorted(partitions, key=lambda values: (values["fingerprint"], values["recorded_month"])):
        fingerprint, month = str(partition["fingerprint"]), str(partition["recorded_month"])
        mask = pc.and_(pc.equal(table["fingerprint"], fingerprint), pc.equal(table["recorded_month"], month))
        rows = table.filter(mask).select(of.file_schema.names)
        staged.append(write_file(rows, fingerprint, month, storage, on_retry, of))
    return staged


def write_file(
    rows: pa.Table,
    fingerprint: str,
    recorded_month: str,
    storage: Storage,
    on_retry: Callable[[], None] | None = None,
    of: RowTable = TRANSCRIPT_ROWS,
) -> StagedFile:
    """Writes ``rows`` (the ``file_schema`` of ``of``) of one partition as one file. Raises as ``write_staged``."""
    if not pc.all(pc.match_substring_regex(pa.array([fingerprint, recorded_month]), _SAFE)).as_py():
        raise ValueError("fingerprint and recorded_month become folder names: letters, digits, dot, dash and underscore only")
    # The whole file is written at once: blocks are small, its size is known, and no partial file is ever visible.
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, **of.parquet_options)
    content = buffer.getvalue()
    path = f"fingerprint={fingerprint}/recorded_month={recorded_month}/part-{uuid.uuid4().hex}.zstd.parquet"
    storage.write_bytes(path, content, on_retry)
    return StagedFile(
        path=path,
        size_bytes=content.size,
        modified_ms=time.time_ns() // 1_000_000,
        fingerprint=fingerprint,
        recorded_month=recorded_month,
        recording_ids=tuple(rows["recording_id"].to_pylist()),
        attempts=tuple(rows["attempt"].to_pylist()),
        statuses=tuple(rows["status"].to_pylist()),
        archive_ids=tuple(_list_or_nulls(rows, "archive_id")),
        archive_rows=tuple(_list_or_nulls(rows, "archive_rows")),
        stats=_make_stats(rows),
    )


def _list_or_nulls(rows: pa.Table, name: str) -> list[Any]:
    return rows[name].to_pylist() if name in rows.column_names else [None] * rows.num_rows


def keep_rows(file: StagedFile, keep: Sequence[bool], storage: Storage, of: RowTable = TRANSCRIPT_ROWS) -> StagedFile:
    """A new staged file with only the rows of ``file`` where ``keep`` is true.

    The old one is left for vacuum: if an earlier commit of it went through unnoticed, readers see it.
    """
    with storage.filesystem.open_input_file(file.path) as source:
        rows = pq.ParquetFile(source).read().cast(of.file_schema)
    return write_file(rows.filter(pa.array(keep)), file.fingerprint, file.recorded_month, storage, of=of)


def refuse_rows(file: StagedFile, firsts: Mapping[int, str | None], storage: Storage) -> StagedFile:
    """A new staged file of those rows of ``file`` whose id was taken: failed rows with ids of their own, which name both.

    ``firsts`` maps the place of such a row to the archive object of the row that was first; None: it is an object itself.
    """
    with storage.filesystem.open_input_file(file.path) as source:
        rows = pq.ParquetFile(source).read().cast(FILE_SCHEMA).take(pa.array(list(firsts), pa.int64())).to_pylist()
    kept = {*_STATISTICS, "archive_id", "archive_rows", "source", "metadata", "provenance", "timings"}
    refused = []
    for row, first in zip(rows, firsts.values(), strict=True):
        taken = row["recording_id"]
        second = find_origin(taken, row["archive_id"])
        own_id = blake2b(f"\nid taken\n{taken}\n{second or ''}".encode(), digest_size=16).hexdigest()
        names = f"{_name_origin(first)}, and this is {_name_origin(second)}"
        error = IdTaken(own_id, f"the recording_id {taken} is taken by {names}; rename one of them")
        described = {"stage": error.stage, "reason": error.reason, "detail": error.detail, "retryable": error.retryable}
        changes = {"recording_id": own_id, "status": "failed", "error": described}
        refused.append({name: value for name, value in row.items() if name in kept} | changes)
    return write_file(pa.Table.from_pylist(refused, schema=FILE_SCHEMA), file.fingerprint, file.recorded_month, storage)


def find_origin(recording_id: str, archive_id: str | None) -> str | None:
    """The archive object that a recording is in; None where it is an object of the archive itself."""
    return None if archive_id == recording_id else archive_id


def _name_origin(origin: str | None) -> str:
    return "an object of the archive" if origin is None else f"a file in the archive object {origin}"


def _make_stats(rows: pa.Table) -> str:
    """Delta protocol, "Per-file Statistics"."""
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    for name in _STATISTICS:
        found = pc.min_max(rows[name]).as_py()
        least[name], greatest[name] = found["min"], found["max"]
    nulls = dict.fromkeys(_STATISTICS, 0)
    return json.dumps({"numRecords": rows.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls})
