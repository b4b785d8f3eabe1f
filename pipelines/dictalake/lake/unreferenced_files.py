"""Files of a table that its newest version does not name: an erasure deletes those that hold what was erased."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from pyarrow import fs

from dictalake.config.sections import PATIENT_HASHES
from dictalake.lake.delta import read_parquet
from dictalake.lake.schema import RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage
from dictalake.lake.tombstones import ErasedSubjects

_THREADS = 8
_SUBJECTS = ("source.uri", "archive_uri", "dicom.study_instance_uid", *(f"dicom.{name}" for name in PATIENT_HASHES.values()))
_FIELDS = {field.name: field for field in (*TRANSCRIPTS, *RUNS)}
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
        return any(_is_forbidden(row, forbidden) for row in _read_subjects(path, storage, columns))

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


def _read_subjects(path: str, storage: Storage, columns: list[str]) -> Iterator[dict[str, Any]]:
    """What the rows of a file say of whom they are about: of structs only those fields. Null where a file lacks a column."""
    wanted = {name: ds.field(*name.split(".")) for name in _SUBJECTS if name.split(".")[0] in columns}
    schema = pa.schema([_FIELDS[name] for name in columns])
    for batch in read_parquet([path], schema, storage).to_batches(columns=wanted):
        yield from batch.to_pylist()


def _is_forbidden(row: Mapping[str, Any], forbidden: ErasedSubjects) -> bool:
    is_covered = any(covers_location(row.get(name), forbidden) for name in ("source.uri", "archive_uri"))
    return is_covered or forbidden.covers_dicom({name.removeprefix("dicom."): value for name, value in row.items() if value})


def covers_location(location: str | None, forbidden: ErasedSubjects) -> bool:
    """Whether the location was erased. A run may have recorded a local path without its scheme."""
    return bool(location) and any(forbidden.covers_uri(name) for name in (str(location), f"file://{location}"))
