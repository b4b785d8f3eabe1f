"""Takes out of staged files the rows of what was erased while they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from dictalake.lake.staged_files import StagedFile, keep_rows
from dictalake.lake.storage import Storage
from dictalake.lake.tombstones import ErasedSubjects


def drop_erased(files: Sequence[StagedFile], erased: ErasedSubjects, storage: Storage) -> tuple[list[StagedFile], int]:
    """``files`` less the rows of ``erased``, and how many rows that were.

    A file that holds such rows is replaced by one without them, and deleted at once. Raises OSError.
    """
    kept, rows_erased, replaced = [], 0, []
    for file in files:
        with storage.filesystem.open_input_file(file.path) as source:
            rows = pq.ParquetFile(source).read(columns=["source", "archive_id", "dicom"]).to_pylist()
        keep = [
            not (_covers_source(row["source"] or {}, row["archive_id"], erased) or erased.covers_dicom(row["dicom"]))
            for row in rows
        ]
        if all(keep):
            kept.append(file)
            continue
        rows_erased += keep.count(False)
        if any(keep):
            kept.append(keep_rows(file, keep, storage))
        replaced.append(file.path)
    for path in replaced:
        storage.filesystem.delete_file(path)
    return kept, rows_erased


def _covers_source(source: Mapping[str, Any], archive_id: str | None, erased: ErasedSubjects) -> bool:
    uri = str(source.get("uri") or "")
    return bool(uri) and erased.covers_recording(uri, source.get("version"), archive_id)
