"""Files of a table that its newest version does not name: an erasure deletes those that hold what was erased."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import compress, groupby
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from dictalake.config.sections import PATIENT_HASHES
from dictalake.lake.delta import read_parquet
from dictalake.lake.schema import RUNS, TRANSCRIPTS
from dictalake.lake.storage import Storage
from dictalake.lake.table_log import TableLog
from dictalake.lake.tombstones import ErasedSubjects

_THREADS = 8
_FILES_AT_ONCE = 200
_SUBJECTS = (
    *("source.uri", "source.version", "archive_id", "archive_uri", "config"),
    *("dicom.study_instance_uid", *(f"dicom.{name}" for name in PATIENT_HASHES.values())),
)
_FIELDS = {field.name: field for field in (*TRANSCRIPTS, *RUNS)}

IsForbidden = Callable[[Mapping[str, Any], ErasedSubjects], bool]


def delete_forbidden_files(
    storage: Storage,
    schema: pa.Schema,
    columns: list[str],
    forbidden: ErasedSubjects,
    is_forbidden: IsForbidden | None = None,
) -> int:
    """Deletes files that hold forbidden rows and that the newest version does not name; returns how many.

    Those are files of old versions, and files that killed runs left behind. A live run that has written such a file but not
    committed it transcribes the other recordings in it again. Other files of old versions stay until they are vacuumed.
    """
    test = is_forbidden or _is_forbidden

    def look(path: str) -> bool:
        try:
            return any(test(row, forbidden) for row in _read_subjects(path, storage, columns))
        except FileNotFoundError:  # vacuumed since
            return False

    with ThreadPoolExecutor(_THREADS) as pool:
        return delete_unused(storage, schema, lambda paths: list(compress(paths, pool.map(look, paths))))


def delete_unused(
    storage: Storage,
    schema: pa.Schema,
    find_unwanted: Callable[[list[str]], list[str]],
    older_than_s: float = 0.0,
    before_delete: Callable[[], object] = lambda: None,
) -> int:
    """Deletes the unwanted ones of the data files that the newest version does not name; returns how many.

    It gives ``find_unwanted`` some files of one folder at a time, and calls ``before_delete`` if there are such. A file that is
    younger than ``older_than_s`` may be one whose writer is about to commit it.
    """
    # 8 bytes for each file in use. That an unused one has the same hash as one of them is next to impossible, and leaves it.
    used = np.unique(np.fromiter(map(hash, map(unquote, TableLog(storage, schema).paths())), np.int64))
    latest = time.time() - older_than_s
    found = list[str]()
    for files in storage.list_files():
        data = [one for one in files if one.path.endswith(".parquet") and not one.path.startswith("_delta_log/")]
        old = [one.path for one in data if not older_than_s or one.modified_s < latest]
        hashes = np.fromiter(map(hash, old), np.int64)
        unused = list(compress(old, ~np.isin(hashes, used)))
        # A page of a bucket has files of many folders.
        for _, of_folder in groupby(sorted(unused), key=lambda path: path.rpartition("/")[0]):
            some = list(of_folder)
            for start in range(0, len(some), _FILES_AT_ONCE):
                found += find_unwanted(some[start : start + _FILES_AT_ONCE])
    if not found:
        return 0
    before_delete()
    wanted = set(found)
    used_now = {path for path in map(unquote, TableLog(storage, schema).paths()) if path in wanted}
    deleted = [path for path in found if path not in used_now]  # readers need what was committed meanwhile
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
    uri = row.get("source.uri")
    is_covered = bool(uri) and forbidden.covers_recording(str(uri), row.get("source.version"), row.get("archive_id"))
    return is_covered or forbidden.covers_dicom({name.removeprefix("dicom."): value for name, value in row.items() if value})


def covers_location(location: str | None, forbidden: ErasedSubjects) -> bool:
    """Whether the location was erased. A run may have recorded a local path without its scheme."""
    return bool(location) and any(forbidden.covers_place(name) for name in (str(location), f"file://{location}"))
