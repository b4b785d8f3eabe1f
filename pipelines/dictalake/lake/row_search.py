"""Finds the rows that an erasure means, in a table of any number of files: it reads each file once and keeps no footer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from dictalake.config.sections import PATIENT_HASHES
from dictalake.errors import Erased
from dictalake.lake.delta import LeanDataset
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import Storage

_FILE = "path of the file"  # a column that each file has as a partition, with one value
_FILES_IN_A_SCAN = 2_000
_FILES_AT_ONCE = 4  # each takes the columns that are read of one file


class Match:
    """Which rows the subjects of an erasure mean. It grows: the URI of a row that was found also finds the object's other
    versions. ``growth`` counts the changes that can find more rows."""

    def __init__(self, recordings: Iterable[str], uris: Iterable[str], studies: Iterable[str], patients: Iterable[str]) -> None:
        self.ids, self.uris = set(recordings), set(uris)
        self.growth = 0
        self._studies, self._patients = list(studies), list(patients)

    def add_uris(self, uris: Iterable[str]) -> None:
        new = set(uris) - self.uris
        # The files in an archive object are uri#path: their rows are found by the object's URI already.
        self.growth += any(uri.split("#", 1)[0] not in self.uris for uri in new)
        self.uris |= new

    def filter(self) -> ds.Expression:
        ids, uris = pa.array(sorted(self.ids), pa.string()), pa.array(sorted(self.uris), pa.string())
        uri = ds.field("source", "uri")
        found = ds.field("recording_id").isin(ids) | ds.field("archive_id").isin(ids) | uri.isin(uris)
        for one in sorted(self.uris):
            found = found | pc.starts_with(uri, pattern=f"{one}#")
        found = found | ds.field("dicom", "study_instance_uid").isin(pa.array(self._studies, pa.string()))
        for name in PATIENT_HASHES.values():
            found = found | ds.field("dicom", name).isin(pa.array(self._patients, pa.string()))
        # A row that only says that its recording was erased may stay.
        return found & is_not_erased()


def is_not_erased() -> ds.Expression:
    """Whether a row of TRANSCRIPTS says more than that its recording was erased."""
    reason = ds.field("error", "reason")
    return reason.is_null() | (reason != Erased.reason)


class RowSearch:
    """Finds rows in the table of transcripts again and again, and reads a file again only where it may hold some.

    Those are files that hold rows which were found, new files, and all files after ``match`` has grown.
    """

    def __init__(self, delta: DeltaTable, storage: Storage, match: Match) -> None:
        self._delta, self._storage, self._match = delta, storage, match
        self._without: set[str] = set()  # files without such rows
        self._growth = match.growth

    def find(self) -> list[dict[str, Any]]:
        """The rows of the newest version, with recording_id, archive_id, fingerprint, recorded_month and uri."""
        if self._growth != self._match.growth:
            self._growth = self._match.growth
            self._without.clear()
        self._delta.update_incremental()
        paths = list_files(self._delta)
        unread = [path for path in paths if path not in self._without]
        names = ("recording_id", "archive_id", "fingerprint", "recorded_month")
        columns = {name: ds.field(name) for name in names} | {"uri": ds.field("source", "uri"), _FILE: ds.field(_FILE)}
        rows = scan(unread, TRANSCRIPTS, self._storage, columns, self._match.filter()).to_pylist()
        self._without = set(paths) - {row.pop(_FILE) for row in rows}
        return rows


def list_files(delta: DeltaTable) -> list[str]:
    """The paths of a table's files."""
    paths: list[str] = pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist()
    return paths


def scan(
    paths: Sequence[str],
    schema: pa.Schema,
    storage: Storage,
    columns: dict[str, ds.Expression] | list[str],
    wanted: ds.Expression | None = None,
) -> pa.Table:
    """The wanted rows of a table's files, with constant memory besides them: few files at once."""
    parquet, names = ds.ParquetFileFormat(), schema.append(pa.field(_FILE, pa.string()))
    found = []
    for start in range(0, max(len(paths), 1), _FILES_IN_A_SCAN):  # a table without files gives a table without rows
        part = paths[start : start + _FILES_IN_A_SCAN]
        fragments = [parquet.make_fragment(path, storage.filesystem, _make_partition(path)) for path in part]
        rows = LeanDataset(fragments, names, parquet, storage.filesystem)
        found.append(
            rows.scanner(
                columns=columns, filter=wanted, fragment_readahead=_FILES_AT_ONCE, batch_readahead=_FILES_AT_ONCE
            ).to_table()
        )
    return pa.concat_tables(found)


def _make_partition(path: str) -> ds.Expression:
    """The columns that are not in the file: those of its folders, ``name=value``, and its path."""
    values = dict(folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder)
    made = ds.field(_FILE) == path
    for name, value in values.items():
        made = made & (ds.field(name) == value)
    return made
