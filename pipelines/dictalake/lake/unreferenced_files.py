"""Files of a table that its newest version does not name: an erasure deletes those that hold what was erased."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyarrow import fs

from dictalake.lake.storage import Storage
from dictalake.lake.tombstones import ErasedSubjects

_THREADS = 16
_PARTIAL_S = 3600.0  # a local file that is still being written is younger


def delete_forbidden_files(delta: DeltaTable, storage: Storage, columns: list[str], forbidden: ErasedSubjects) -> int:
    """Deletes files that hold forbidden rows and that the newest version does not name; returns how many.

    Those are files of old versions, and files that killed runs left behind. A live run that has written such a file but not
    committed it transcribes the other recordings in it again. Other files of old versions stay until they are vacuumed.
    """
    delta.update_incremental()
    used = set(pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist())
    infos = storage.filesystem.get_file_info(fs.FileSelector("", recursive=True, allow_not_found=True))
    unused = [info.path for info in infos if info.type == fs.FileType.File and info.path not in used]
    ages = {info.path: time.time() - (info.mtime_ns or 0) / 1e9 for info in infos}

    def is_forbidden(path: str) -> bool:
        if path.endswith(".partial"):  # of a local writer that was killed while it wrote
            return ages[path] > _PARTIAL_S
        if not path.endswith(".parquet") or path.startswith("_delta_log/"):
            return False
        with storage.filesystem.open_input_file(path) as source:
            file = pq.ParquetFile(source)
            rows = file.read(columns=[name for name in columns if name in file.schema_arrow.names]).to_pylist()
        return any(_is_forbidden(row, forbidden) for row in rows)

    def look(path: str) -> bool:
        try:
            return is_forbidden(path)
        except FileNotFoundError:  # vacuumed since
            return False

    with ThreadPoolExecutor(_THREADS) as pool:
        found = [path for path, is_one in zip(unused, pool.map(look, unused), strict=True) if is_one]
    delta.update_incremental()
    used = set(pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist())
    deleted = [path for path in found if path not in used]  # readers need what was committed meanwhile
    for path in deleted:
        with suppress(FileNotFoundError):
            storage.filesystem.delete_file(path)
    return len(deleted)


def _is_forbidden(row: Mapping[str, Any], forbidden: ErasedSubjects) -> bool:
    uris = [(row.get("source") or {}).get("uri"), row.get("archive_uri")]
    return any(covers_location(uri, forbidden) for uri in uris) or forbidden.covers_dicom(row.get("dicom"))


def covers_location(location: str | None, forbidden: ErasedSubjects) -> bool:
    """Whether the location was erased. A run may have recorded a local path without its scheme."""
    return bool(location) and any(forbidden.covers_uri(name) for name in (str(location), f"file://{location}"))
