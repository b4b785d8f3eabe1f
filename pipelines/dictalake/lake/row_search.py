"""Finds the rows that an erasure means, in a table of any number of files: it reads each file once and keeps no footer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from dictalake.config.sections import PATIENT_HASHES
from dictalake.config.uris import find_path, leads_through_link, show_path, split_member, today_uri
from dictalake.errors import BadManifestLine, Erased
from dictalake.lake.delta import LeanDataset
from dictalake.lake.schema import TRANSCRIPTS
from dictalake.lake.storage import Storage
from dictalake.lake.table_log import TableLog
from dictalake.records import BAD_LINE_VERSION, list_subject_uris, make_local_version

Row = dict[str, Any]

FILE = "path of the file"  # a column that each file has as a partition, with one value
_IS_NAMED = "is named"
_FILES_IN_A_SCAN = 200
_FILES_AT_ONCE = 4  # each takes the columns that are read of one file
_MOST_PREFIXES = 64  # of one filter; beyond it every file in an archive object is looked at
_COLUMNS = {
    **{name: ds.field(name) for name in ("recording_id", "archive_id", "fingerprint", "recorded_month", "status")},
    "uri": ds.field("source", "uri"),
    "version": ds.field("source", "version"),
    "transcribed_at": ds.field("provenance", "transcribed_at"),
    "study": ds.field("dicom", "study_instance_uid"),
    **{name: ds.field("dicom", name) for name in PATIENT_HASHES.values()},
}


class Match:
    """Which rows the subjects of an erasure mean. ``uris`` are those that were named, in all spellings.

    It grows: the URI of a row that was found also finds the object's other versions. ``growth`` counts the changes that can
    find more rows.

    A row of an older version may have a path through a link, which may lead elsewhere since. It is meant by its path where the
    file that is there now has its version. Such rows that were found are in ``linked``, as URIs with versions, and ``today``
    has the URIs that a listing of today gives them. ``doubtful`` are rows that may be meant: only their id tells.
    """

    def __init__(self, recordings: Iterable[str], uris: Iterable[str], studies: Iterable[str], patients: Iterable[str]) -> None:
        self.ids, self.uris = set(recordings), set(uris)
        self.studies, self.patients = set(studies), set(patients)
        self.growth = 0
        self.linked: set[tuple[str, str]] = set()
        self.today: set[str] = set()
        self.doubtful: dict[str, Row] = {}
        self.lists: set[str] = set()  # manifests with bad lines that were found
        self.objects: set[str] = set()  # what else was found, and what it is in
        self._links: set[str] = set()  # the URIs of ``linked``
        self._objects = set(self.uris)  # what may have files in it
        # A link above a file gave it another URI before 0.2: the same name in another folder.
        self._names = {name for uri in self.uris if (name := _find_name(uri))}

    def add_uris(self, uris: Iterable[str]) -> None:
        """Adds URIs of objects of the archive."""
        for uri in uris:
            self.growth += uri not in self.uris or uri not in self._objects
            self.uris.add(uri)
            self._objects.add(uri)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Takes the URI of a row that was found, and of the object that it is in if that was named by its id."""
        if not row["uri"]:
            return
        own, *of = list_subject_uris(row["uri"], row["version"], row["archive_id"])
        is_line = row["version"] == BAD_LINE_VERSION
        for uri in of if is_line else (own, *of):
            (self.lists if is_line else self.objects).update((uri, today_uri(uri)))
        if any(map(_is_linked, of or (own,))):
            self._add_linked(row, own, of)
            return
        if row["archive_id"] in (None, row["recording_id"]):
            self.add_uris([own])
        elif own not in self.uris and self._objects.isdisjoint(of):
            self.uris.add(own)
            self.growth += 1
        if row["archive_id"] in self.ids:
            self.add_uris(of)

    def _add_linked(self, row: Mapping[str, Any], own: str, of: Sequence[str]) -> None:
        """Takes the versions of a row that were found, and no others: the URI may have been that of other files too."""
        is_whole = row["archive_id"] in self.ids
        self.growth += row["recording_id"] not in self.ids or own not in self._links
        self.ids.add(row["recording_id"])
        self._links.add(own)
        self.linked.update((uri, row["version"] or "") for uri in (own, *(of if is_whole else ())))
        for today_object, today in _list_today(own, of):
            if _has_version(today_object, row["version"]):
                self.today.update((today, today_object) if is_whole else (today,))

    def filter(self) -> ds.Expression:
        """The rows that are meant, and some that ``means`` refuses. A row that only says that it was erased is none."""
        uri, found = ds.field("source", "uri"), self._name_rows()
        is_inside = ds.field("archive_id").is_valid() | (ds.field("error", "reason") == BadManifestLine.reason)
        if len(self._objects) <= _MOST_PREFIXES:
            begins = pc.scalar(False)
            for one in sorted(self._objects):
                begins = begins | pc.starts_with(uri, pattern=f"{one}#")
            is_inside = is_inside & begins
        found = found | is_inside | uri.isin(pa.array(sorted(self.uris | self._links), pa.string()))
        for one in sorted(self._names):
            found = found | (pc.starts_with(uri, pattern="file:") & pc.match_substring(uri, pattern=f"/{one}"))
        return found & is_not_erased()

    def _name_rows(self) -> ds.Expression:
        """Rows that are meant by their own columns, whatever their URI."""
        ids = pa.array(sorted(self.ids), pa.string())
        found = ds.field("recording_id").isin(ids) | ds.field("archive_id").isin(ids)
        found = found | ds.field("dicom", "study_instance_uid").isin(pa.array(sorted(self.studies), pa.string()))
        for name in PATIENT_HASHES.values():
            found = found | ds.field("dicom", name).isin(pa.array(sorted(self.patients), pa.string()))
        return found

    def columns(self) -> dict[str, ds.Expression]:
        return {**_COLUMNS, _IS_NAMED: self._name_rows()}

    def means(self, row: Row) -> bool:
        """Whether a row that passed the filter is meant; takes the mark of ``columns`` out of it."""
        if row.pop(_IS_NAMED):
            return True
        own, *of = list_subject_uris(row["uri"] or "", row["version"], row["archive_id"])
        is_named = own in self.uris or not self._objects.isdisjoint(of)
        if not any(map(_is_linked, of or (own,))):
            return is_named or (bool(self._names) and any(not self.uris.isdisjoint(uris) for uris in _list_today(own, of)))
        may_be = own in self._links
        for today_object, today in _list_today(own, of):
            if is_named or not self.uris.isdisjoint((today_object, today)):
                may_be, there = True, _has_version(today_object, row["version"])
                if there or (there is None and is_named):
                    return True
        if may_be:
            self.doubtful[row["recording_id"]] = row
        return False


def _find_name(uri: str) -> str | None:
    """The name of a local object, without the name of a file in it; None for an object elsewhere, empty for a folder."""
    path = find_path(uri)
    return show_path(os.path.basename(split_member(path)[0])) if path is not None else None


def _list_today(own: str, of: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What a listing of today calls the object that a recording is or is in, and the recording, given by their URIs."""
    if own.startswith("file:"):
        for uri in of or (own,):
            today = _resolve_folder(uri)
            yield today, today + own[len(uri) :]


def _has_version(uri: str, version: str | None) -> bool | None:
    """Whether the local file at ``uri`` has this version; None where there is none."""
    try:
        return make_local_version(os.lstat(find_path(uri) or "")) == version
    except (OSError, ValueError):
        return None


def _is_linked(uri: str) -> bool:
    """Whether the path of an object leads through a link."""
    return uri.startswith("file:") and _has_link(uri.rpartition("/")[0])


def _resolve_folder(uri: str) -> str:
    folder, slash, name = uri.rpartition("/")
    return _read_links(folder) + slash + name


@lru_cache(maxsize=4096)
def _has_link(folder: str) -> bool:
    return leads_through_link(f"{folder}/x")


@lru_cache(maxsize=4096)
def _read_links(folder: str) -> str:
    return today_uri(f"{folder}/x")[:-2]


def is_not_erased() -> ds.Expression:
    """Whether a row of TRANSCRIPTS says more than that its recording was erased."""
    reason = ds.field("error", "reason")
    return reason.is_null() | (reason != Erased.reason)


class RowSearch:
    """Finds rows in the table of transcripts again and again, and reads a file again only where it may hold some.

    Those are files that hold rows which were found, new files, and all files after ``match`` has grown. It holds no list of
    the others: a lake may have 150,000.
    """

    def __init__(self, storage: Storage, match: Match) -> None:
        self._storage, self._match = storage, match
        self._version: int | None = None  # at which all files were looked at
        self._growth = match.growth
        self.files: set[str] = set()  # that hold rows which were found

    def find(self) -> list[Row]:
        """The rows of the newest version that are meant, with ``_COLUMNS``."""
        if self._growth != self._match.growth:
            self._growth, self._version = self._match.growth, None
        log = TableLog(self._storage, TRANSCRIPTS)
        columns = self._match.columns() | {FILE: ds.field(FILE)}
        batches = iter_scan(self._list_unread(log), TRANSCRIPTS, self._storage, columns, self._match.filter())
        rows = [row for batch in batches for row in batch.to_pylist() if self._match.means(row)]
        self.files, self._version = {row.pop(FILE) for row in rows}, log.version
        return rows

    def _list_unread(self, log: TableLog) -> Iterable[str]:
        changes = None if self._version is None else log.find_changes(self._version)
        if changes is None:
            return log.paths()
        added, removed = changes
        return sorted(self.files - removed | set(added))

    def find_erased(self, recording_ids: Iterable[str]) -> set[str]:
        """Those of ``recording_ids`` that have a row which only says that they were erased."""
        return find_erased(self._storage).intersection(recording_ids)

    def count_without_hash(self, columns: Iterable[str]) -> dict[str, int]:
        """How many rows of each run are of DICOM objects and lack the hash of a patient in one of ``columns``."""
        is_dicom = (ds.field("source", "container") == "dicom") | ds.field("dicom", "study_instance_uid").is_valid()
        is_dicom = is_dicom | ds.field("dicom", "modality").is_valid()
        lacks = pc.scalar(False)
        for name in columns:
            lacks = lacks | ds.field("dicom", name).is_null()
        counts: dict[str, int] = {}
        files = TableLog(self._storage, TRANSCRIPTS).paths()
        for batch in iter_scan(files, TRANSCRIPTS, self._storage, ["run_id"], is_dicom & lacks & is_not_erased()):
            for found in batch["run_id"].value_counts().to_pylist():
                counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
        return counts


def find_erased(storage: Storage) -> set[str]:
    """The ids of recordings that have a row which only says that they were erased."""
    found = scan(TableLog(storage, TRANSCRIPTS).paths(), TRANSCRIPTS, storage, ["recording_id"], ~is_not_erased())
    return set(found["recording_id"].to_pylist())


def list_files(delta: DeltaTable) -> list[str]:
    """The paths of a table's files. They are all in memory, here and in ``delta``: ``TableLog`` reads them one by one."""
    paths: list[str] = pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist()
    return paths


def scan(
    paths: Iterable[str],
    schema: pa.Schema,
    storage: Storage,
    columns: list[str],
    wanted: ds.Expression | None = None,
) -> pa.Table:
    """The wanted rows of a table's files, with constant memory besides them."""
    batches = list(iter_scan(paths, schema, storage, columns, wanted))
    return pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in columns]))


def iter_scan(
    paths: Iterable[str],
    schema: pa.Schema,
    storage: Storage,
    columns: Mapping[str, ds.Expression] | list[str],
    wanted: ds.Expression | None = None,
) -> Iterator[pa.RecordBatch]:
    """The same, batch by batch: few files are open at once."""
    parquet, names = ds.ParquetFileFormat(), schema.append(pa.field(FILE, pa.string()))
    left = iter(paths)
    while part := list(islice(left, _FILES_IN_A_SCAN)):
        fragments = [parquet.make_fragment(path, storage.filesystem, _make_partition(path)) for path in part]
        rows = LeanDataset(fragments, names, parquet, storage.filesystem)
        yield from rows.to_batches(
            columns=columns, filter=wanted, fragment_readahead=_FILES_AT_ONCE, batch_readahead=_FILES_AT_ONCE
        )


def _make_partition(path: str) -> ds.Expression:
    """The columns that are not in the file: those of its folders, ``name=value``, and its path."""
    made = ds.field(FILE) == path
    for name, value in list_folders(path).items():
        made = made & (ds.field(name) == value)
    return made


def list_folders(path: str) -> dict[str, str]:
    """The columns that a file has by its folders, ``name=value``."""
    return dict(folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder)
