"""Files of a table that its newest version does not name: an erasure deletes those that hold what was erased."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
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
_SUBJECTS = (
    *("source.uri", "source.version", "archive_id", "archive_uri", "config"),
    *("dicom.study_instance_uid", *(f"dicom.{name}" for name in PATIENT_HASHES.values())),
)
_FIELDS = {field.name: field for field in (*TRANSCRIPTS, *RUNS)}

IsForbidden = Callable[[Mapping[str, Any], ErasedSubjects], bool]


def delete_forbidden_files(
    delta: DeltaTable,
    storage: Storage,
    columns: list[str],
    forbidden: ErasedSubjects,
    is_forbidden: IsForbidden | None = None,
) -> int:
    """Deletes files that hold forbidden rows and that the newest version does not name; returns how many.

    Those are files of old versions, and files that killed runs left behind. A live run that has written such a file but not
    committed it transcribes the other recordings in it again. Other files of old versions stay until they are vacuumed.
    """
    test = is_forbidden or _is_forbidden
    return delete_unused(
        delta, storage, lambda path: any(test(row, forbidden) for row in _read_subjects(path, storage, columns))
    )


def delete_unused(delta: DeltaTable, storage: Storage, is_unwanted: Callable[[str], bool], older_than_s: float = 0.0) -> int:
    """Deletes the unwanted ones of the data files that the newest version does not name; returns how many.

    A file that is younger than ``older_than_s`` may be one whose writer is about to commit it.
    """
    delta.update_incremental()
    used = set(pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist())
    infos = storage.filesystem.get_file_info(fs.FileSelector("", recursive=True, allow_not_found=True))
    latest = time.time() - older_than_s
    unused = [
        info.path
        for info in infos
        if info.type == fs.FileType.File
        and info.path not in used
        and info.path.endswith(".parquet")
        and not info.path.startswith("_delta_log/")
        and (not older_than_s or (info.mtime_ns or 0) / 1e9 < latest)
    ]

    def look(path: str) -> bool:
        try:
            return is_unwanted(path)
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
    uri = row.get("source.uri")
    is_covered = bool(uri) and forbidden.covers_recording(str(uri), row.get("source.version"), row.get("archive_id"))
    return is_covered or forbidden.covers_dicom({name.removeprefix("dicom."): value for name, value in row.items() if value})


def covers_location(location: str | None, forbidden: ErasedSubjects) -> bool:
    """Whether the location was erased. A run may have recorded a local path without its scheme."""
    return bool(location) and any(forbidden.covers_place(name) for name in (str(location), f"file://{location}"))
