"""The manifests of runs, ``manifests/<run_id>/part-00000.parquet`` …: the driver writes them, and workers read them.

One row group is one block of recordings, which travel and are committed together. Parts are small, so a worker that needs one
block reads a short footer, and neither the driver nor a worker ever holds the whole of a long manifest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from dictalake.config.sections import Lake
from dictalake.errors import RunError
from dictalake.lake.places import MANIFESTS_FOLDER
from dictalake.lake.storage import TRIES, is_transient, open_storage
from dictalake.retries import call_with_retries

_PART_BLOCKS = 64
_RUN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class BlockPlace(NamedTuple):
    """The place of a block in a manifest: row group ``group`` of part number ``part``."""

    part: int
    group: int


class Manifests:
    """The manifests of a lake. The methods raise RunError when the lake cannot be read or written."""

    def __init__(self, lake: Lake) -> None:
        self._storage = open_storage(lake, MANIFESTS_FOLDER)

    def write(self, run_id: str, parts: Iterable[pa.Table], schema: pa.Schema, first_part: int = 0) -> Iterator[BlockPlace]:
        """Writes each of ``parts``, which is one block of recordings, and yields its place once it can be read.

        Raises ValueError for a ``run_id`` that is not a plain file name.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError("run_id becomes a folder name: letters, digits, dot, dash and underscore only")
        part, waiting = first_part, []
        for block in parts:
            waiting.append(block)
            if len(waiting) == _PART_BLOCKS:
                yield from self._write_part(run_id, part, waiting, schema)
                part, waiting = part + 1, []
        if waiting:
            yield from self._write_part(run_id, part, waiting, schema)

    def _write_part(self, run_id: str, part: int, parts: list[pa.Table], schema: pa.Schema) -> list[BlockPlace]:
        buffer = pa.BufferOutputStream()
        with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
            for block in parts:
                writer.write_table(block, row_group_size=max(1, block.num_rows))
        self._put(_name(run_id, part), buffer.getvalue())
        return [BlockPlace(part, group) for group in range(len(parts))]

    def _put(self, path: str, content: pa.Buffer) -> None:
        try:
            self._storage.write_bytes(path, content)
        except OSError as error:
            raise RunError(f"cannot write the manifest to {self._storage.uri}: {error}") from error

    def read_block(self, run_id: str, place: BlockPlace) -> pa.Table:
        """The recordings of one block."""

        def read() -> pa.Table:
            with self._storage.filesystem.open_input_file(_name(run_id, place.part)) as source:
                return pq.ParquetFile(source).read_row_group(place.group)

        try:
            return call_with_retries(read, TRIES, is_transient)
        except OSError as error:
            raise RunError(f"cannot read a block of the manifest below {self._storage.uri}: {type(error).__name__}") from error

    def find(self, run_ids: Iterable[str], schema: pa.Schema) -> ds.Dataset:
        """The manifests of ``run_ids`` as one dataset; a missing one is empty."""
        paths = [path for run_id in run_ids for path in self.paths(run_id)]
        if not paths:
            return ds.dataset(schema.empty_table())
        return ds.dataset(paths, schema=schema, format="parquet", filesystem=self._storage.filesystem)

    def paths(self, run_id: str | None = None, older_than_s: float = 0.0) -> list[str]:
        """The paths of the parts of one manifest, or of all, below the folder; optionally only parts of some age."""
        selector = fs.FileSelector(run_id or "", recursive=True, allow_not_found=True)
        try:
            found = self._storage.filesystem.get_file_info(selector)
        except OSError as error:
            raise RunError(f"cannot list the manifests below {self._storage.uri}: {type(error).__name__}") from error
        parts = [info for info in found if info.type == fs.FileType.File and info.path.endswith(".parquet")]
        latest = time.time() - older_than_s
        return sorted(info.path for info in parts if not older_than_s or (info.mtime_ns or 0) / 1e9 < latest)

    def remove_part(self, path: str) -> None:
        try:
            self._storage.filesystem.delete_file(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"cannot remove an old manifest below {self._storage.uri}: {type(error).__name__}") from error

    def read_part(self, path: str) -> list[pa.Table]:
        """The blocks of the part at ``path``."""
        try:
            with self._storage.filesystem.open_input_file(path) as source:
                file = pq.ParquetFile(source)
                return [file.read_row_group(group) for group in range(file.num_row_groups)]
        except OSError as error:
            raise RunError(f"cannot read a manifest below {self._storage.uri}: {type(error).__name__}") from error

    def rewrite_part(self, path: str, blocks: list[pa.Table]) -> None:
        """Replaces the part at ``path``, for an erasure. The number of row groups stays, so each place stays valid."""
        buffer = pa.BufferOutputStream()
        with pq.ParquetWriter(buffer, blocks[0].schema, compression="zstd") as writer:
            for block in blocks:
                writer.write_table(block, row_group_size=max(1, block.num_rows))
        self._put(path, buffer.getvalue())


def _name(run_id: str, part: int) -> str:
    return f"{run_id}/part-{part:05}.parquet"
