"""The newest version of a table, read from its log file by file.

delta-rs holds a list of all files of a table, 1 to 3 KB for each. An erasure looks into every file of a lake, which nobody may
have compacted, and must not need memory for each. So it takes them from the checkpoint one after the other, less those that
commits since removed, and those that they added. Only what came since the checkpoint is in memory, and that is bounded
(``log_tail``).

Of a table that asks more of a reader or writer than the first versions of Delta's protocol, the list of delta-rs is taken.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema

from dictalake.lake.contract import Table
from dictalake.lake.delta import open_table, require_schema
from dictalake.lake.log_tail import Checkpoint, Commit, is_plain, read_checkpoint, read_commit, write_commit
from dictalake.lake.storage import Storage

_FILES = 4096  # that are read of a checkpoint at once
_BUFFER_BYTES = 1 << 20
_TRIES = 5
_OF_A_FILE = ("path", "partitionValues", "size")


class TableLog:
    """A version of a table. ``append`` can only be called where ``is_plain``."""

    def __init__(self, storage: Storage, schema: pa.Schema) -> None:
        """Raises RunError as ``open_table``, for which this stands, and OSError."""
        self._storage = storage
        self._delta: DeltaTable | None = None
        self._checkpoint: Checkpoint | None = None
        # What commits since the checkpoint added, path → action, and None for what they removed.
        self._since: dict[str, Mapping[str, Any] | None] = {}
        self._metadata: Mapping[str, Any] = {}
        self._protocol: Mapping[str, Any] = {}
        self._transactions: dict[str, int] = {}
        self.version = -1
        self.is_plain = self._read()
        if not self.is_plain:
            self._since.clear()
            self._delta = open_table(storage, schema)
            self.version = int(self._delta.version())
            return
        columns = pa.schema(Schema.from_json(self._metadata["schemaString"]).to_arrow())
        there = Table(columns, tuple(self._metadata["partitionColumns"]))
        require_schema(storage, schema, there, self.configuration)

    @property
    def table_id(self) -> str:
        return str(self._metadata["id"] if self._delta is None else self._delta.metadata().id)

    @property
    def configuration(self) -> Mapping[str, str]:
        return dict(self._metadata["configuration"] if self._delta is None else self._delta.metadata().configuration)

    def transaction_version(self, name: str) -> int | None:
        """The version of an application transaction."""
        if self._delta is not None:
            return self._delta.transaction_version(name)
        return self._transactions.get(name)

    def paths(self) -> Iterator[str]:
        """The paths of the files of this version as the log has them, in no order."""
        if self._delta is not None:
            yield from pa.table(self._delta.get_add_actions())["path"].to_pylist()
            return
        for batch in self._read_adds("path"):
            yield from (path for path in pc.struct_field(batch, "path").to_pylist() if path not in self._since)
        yield from (path for path, add in self._since.items() if add is not None)

    def find(self, paths: Collection[str]) -> set[str]:
        """Those of ``paths`` that are files of this version."""
        wanted = set(paths)
        return {path for path in self.paths() if path in wanted}

    def find_adds(self, paths: Collection[str]) -> list[Mapping[str, Any]]:
        """The actions by which those of ``paths`` that are files of this version were added, with path, values of partitions
        and size. Only of a plain table."""
        found = [add for path in paths if (add := self._since.get(path)) is not None]
        left = {path for path in paths if path not in self._since}
        for batch in self._read_adds("path", "partitionValues", "size") if left else ():
            wanted = pc.is_in(pc.struct_field(batch, "path"), value_set=pa.array(sorted(left), pa.string()))
            found += batch.filter(wanted).to_pylist(maps_as_pydicts="lossy")
        return found

    def find_changes(self, since: int) -> tuple[list[str], set[str]] | None:
        """The paths that commits after the version ``since`` added, and those that they removed. None if the log no longer
        has all of them."""
        added, removed = dict[str, None](), set[str]()
        for version in range(since + 1, self.version + 1):
            commit = read_commit(self._storage, version)
            if commit is None:
                return None
            for path in commit.removes:
                removed.add(path)
                added.pop(path, None)
            added.update(dict.fromkeys(add["path"] for add in commit.adds))
        return list(added), removed

    def append(self, operation: str, info: Mapping[str, Any], actions: Sequence[Mapping[str, Any]]) -> bool:
        """Writes the next version; returns False if another writer came first. Raises OSError."""
        about = {"timestamp": time.time_ns() // 1_000_000, "operation": operation, "engineInfo": "dictalake", **info}
        if not write_commit(self._storage, self.version + 1, [{"commitInfo": about}, *actions]):
            return False
        # As in ``log_tail``: the version may have been there, and cleaned up, before it was written again.
        newest = read_checkpoint(self._storage)
        return newest is None or newest.version <= self.version

    def _read(self) -> bool:
        """Reads the newest version; returns whether the table is a plain one."""
        for _ in range(_TRIES):
            self._checkpoint = read_checkpoint(self._storage)
            self._since, self._transactions, self._metadata, self._protocol = {}, {}, {}, {}
            self.version = -1
            if self._checkpoint is not None and not self._read_checkpoint(self._checkpoint):
                return False
            while (commit := read_commit(self._storage, self.version + 1)) is not None:
                self._take_in(commit)
            newest = read_checkpoint(self._storage)
            if newest is None or newest.version <= self.version:  # else the log was cleaned up meanwhile
                break
        else:
            return False
        return bool(self._metadata) and self._asks_nothing()

    def _asks_nothing(self) -> bool:
        is_append_only = dict(self._metadata["configuration"]).get("delta.appendOnly", "false") == "true"
        plain = is_plain(self._protocol.get("minReaderVersion", 9), self._protocol.get("minWriterVersion", 9))
        return plain and not is_append_only

    def _read_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Takes in what a checkpoint says of the table. Returns False if it is of another kind."""
        try:
            for path in _name_parts(checkpoint):
                for batch in self._read_part(path, ["metaData", "protocol", "txn"]):
                    for row in batch.filter(_has_any(batch)).to_pylist(maps_as_pydicts="lossy"):
                        self._metadata = row["metaData"] or self._metadata
                        self._protocol = row["protocol"] or self._protocol
                        if row["txn"]:
                            self._transactions[row["txn"]["appId"]] = row["txn"]["version"]
        except FileNotFoundError:
            return False
        self.version = checkpoint.version
        return True

    def _take_in(self, commit: Commit) -> None:
        self.version = commit.version
        self._metadata, self._protocol = commit.metadata or self._metadata, commit.protocol or self._protocol
        self._transactions.update(commit.transactions)
        self._since.update(dict.fromkeys(commit.removes))
        self._since.update({add["path"]: {name: add[name] for name in _OF_A_FILE} for add in commit.adds})

    def _read_adds(self, *names: str) -> Iterator[pa.StructArray]:
        """These fields of the files that the checkpoint names."""
        for path in _name_parts(self._checkpoint) if self._checkpoint is not None else ():
            for batch in self._read_part(path, [f"add.{name}" for name in names]):
                yield batch["add"].drop_null()

    def _read_part(self, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._storage.filesystem.open_input_file(path) as source:
            parquet = pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            yield from parquet.iter_batches(batch_size=_FILES, columns=columns, use_threads=False)


def _name_parts(checkpoint: Checkpoint) -> list[str]:
    start = f"_delta_log/{checkpoint.version:020}.checkpoint"
    if checkpoint.parts == 1:
        return [f"{start}.parquet"]
    return [f"{start}.{part:010}.{checkpoint.parts:010}.parquet" for part in range(1, checkpoint.parts + 1)]


def _has_any(batch: pa.RecordBatch) -> pa.Array:
    return pc.or_(pc.or_(pc.is_valid(batch["metaData"]), pc.is_valid(batch["protocol"])), pc.is_valid(batch["txn"]))
