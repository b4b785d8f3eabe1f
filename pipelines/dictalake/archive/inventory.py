"""Recordings from an inventory that the storage service wrote of a bucket, where listing millions of objects takes too long.

============================  =====================================================================================
``archive.inventory``         columns that it needs
============================  =====================================================================================
Amazon S3 Inventory:          Bucket, Key, Size, LastModifiedDate, ETag; VersionId with ``version_aware``
manifest.json (CSV, Parquet)
Google Cloud Storage Insights bucket, name, size, updated, timeDeleted, generation
manifest.json, or one shard
============================  =====================================================================================

It yields the same recordings, with the same ids, as a listing of the same objects. An inventory is hours old: an object that
was overwritten or deleted since becomes a failed row when it is fetched, and a newer object is in the next inventory.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, BinaryIO
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dictalake import logs
from dictalake.archive import storage
from dictalake.archive.findings import Findings
from dictalake.archive.listing import make_recording, make_selection
from dictalake.archive.places import Allowed, find_base, find_bucket, name_place_above, report_outside
from dictalake.archive.streams import open_stream
from dictalake.config.locations import resolve
from dictalake.config.sections import Archive
from dictalake.config.uris import canonical_uri, is_too_long
from dictalake.errors import BadManifestLine, ConfigError, DictalakeError, NotAllowed, name_place
from dictalake.records import BAD_LINE_VERSION, Recording, make_recording_id

_KEY = "archive.inventory"
_BATCH_ROWS = 8192
_BLOCK_BYTES = 2**22
_MOST_MANIFEST_BYTES = 64_000_000
_BAD_FILE = (pa.ArrowException, OSError, EOFError, ValueError, zlib.error, csv.Error)

# By column, in small letters and without underscores: LastModifiedDate of a CSV is last_modified_date in Parquet.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Dialect:
    """How one of the two services names things. ``info`` are columns, and what a listing calls them."""

    service: str
    protocols: tuple[str, ...]
    name: str
    info: Mapping[str, str]
    needs: tuple[str, ...]

    @property
    def columns(self) -> set[str]:
        return {"bucket", self.name, "islatest", "isdeletemarker", "timedeleted", *self.info}


_S3 = _Dialect(
    "Amazon S3",
    ("s3", "s3a"),
    "key",
    {"size": "size", "lastmodifieddate": "LastModified", "etag": "ETag", "versionid": "VersionId"},
    ("Bucket", "Key", "Size", "LastModifiedDate", "ETag"),
)
_GCS = _Dialect(
    "Google Cloud Storage",
    ("gs", "gcs"),
    "name",
    {"size": "size", "updated": "updated", "generation": "generation"},
    ("bucket", "name", "size", "updated", "timeDeleted", "generation"),
)


@dataclass(frozen=True)
class _Inventory:
    """Where the rows are. ``columns`` of a CSV without a header; ``encoded``: its keys are URL-encoded."""

    dialect: _Dialect
    files: Sequence[str]
    columns: Sequence[str] | None = None
    delimiter: str = ","
    encoded: bool = False


def read_inventory(archive: Archive, findings: Findings | None = None) -> Iterator[Recording]:
    """One Recording for each object of ``archive.inventory`` below ``archive.uri`` (all that ``archive.allowed`` holds without
    one) that ``include`` and ``since`` admit, in the inventory's order, as a stream. Another object is a recording with the
    error ``not_allowed``, and a row that cannot be used one with the error ``bad_manifest_line``.

    Raises ConfigError at the call for an inventory that cannot be read or lacks a column, while iterating for a damaged
    file, and at the end where no row names a place that is allowed; RunError where the storage does not answer.
    """
    findings = Findings() if findings is None else findings
    select = make_selection(archive)
    inventory = _open_inventory(archive)
    root = _find_root(archive, inventory.dialect)
    rows = (row for place, file in enumerate(inventory.files, 1) for row in _read_file(file, place, inventory, archive))
    first = list(islice(rows, 1))
    base = find_bucket(find_base(archive, resolve(archive.inventory or "")))
    allowed = Allowed(archive, resolve(archive.uri) if root is not None and archive.uri else base)
    source = _open_source(archive, inventory.dialect)
    reader = _Reader(inventory, resolve(archive.inventory or ""), source, select, root)
    return _iterate(reader, chain(first, rows), allowed, findings)


def _open_inventory(archive: Archive) -> _Inventory:
    location = resolve(archive.inventory or "")
    with _open(location, archive, archive.inventory) as file:
        head = file.peek(4)[:4]
        if not head.lstrip().startswith(b"{"):
            return _Inventory(_recognise(location, archive), [location])
        text = file.read(_MOST_MANIFEST_BYTES)
    try:
        manifest = json.loads(text)
    except ValueError:
        raise ConfigError(f"{_KEY}: the manifest begins like JSON but cannot be read; write it again") from None
    try:
        if "fileSchema" in manifest:
            return _read_s3_manifest(manifest, location)
        if "report_shards_file_names" in manifest:
            return _read_gcs_manifest(manifest, location)
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(f"{_KEY}: the manifest lacks what it should say of its files; write it again") from None
    raise ConfigError(
        f"{_KEY}: this JSON is no manifest of an inventory; give the manifest.json of Amazon S3 Inventory "
        "or of a Google Cloud Storage inventory report"
    )


def _read_s3_manifest(manifest: Mapping[str, Any], location: str) -> _Inventory:
    kind = str(manifest["fileFormat"]).lower()
    if kind not in ("csv", "parquet"):
        raise ConfigError(f"{_KEY}: its files are {kind.upper()[:10]}; configure the inventory to be written as CSV or Parquet")
    columns = [name.strip() for name in manifest["fileSchema"].split(",")] if kind == "csv" else None
    keys = [str(file["key"]) for file in manifest["files"]]
    protocol, _, path = location.rpartition("://")
    if protocol:  # the keys are of the bucket that the manifest is in
        files = [f"{protocol}://{path.split('/', 1)[0]}/{key}" for key in keys]
    else:
        files = [_beside(location, key) for key in keys]
    return _Inventory(_S3, files, columns, encoded=kind == "csv")


def _read_gcs_manifest(manifest: Mapping[str, Any], location: str) -> _Inventory:
    names = manifest["report_shards_file_names"]
    if manifest.get("shard_count", len(names)) != len(names):
        raise ConfigError(f"{_KEY}: the manifest names {len(names)} shards and counts others; take another report")
    config = manifest.get("report_config") or {}
    options = config.get("csv_options") or config.get("csvOptions") or {}
    columns = None
    if options.get("header_required", options.get("headerRequired")) is False:
        report = config.get("object_metadata_report_options") or config["objectMetadataReportOptions"]
        columns = list(report.get("metadata_fields") or report["metadataFields"])
    return _Inventory(_GCS, [_beside(location, str(name)) for name in names], columns, str(options.get("delimiter") or ","))


def _beside(location: str, name: str) -> str:
    return f"{location.rpartition('/')[0]}/{name.rpartition('/')[2]}"


def _recognise(location: str, archive: Archive) -> _Dialect:
    """Of a data file without a manifest: its columns say what it is of."""
    with _open(location, archive) as file:
        try:
            if file.peek(4)[:4] == b"PAR1":
                names = {_plain(name) for name in pq.ParquetFile(file).schema_arrow.names}
            else:
                names = {_plain(name) for name in _read_header(_unpack(file), ",")}
        except _BAD_FILE:
            raise ConfigError(f"{_KEY}: the file is neither CSV nor Parquet that can be read; take another inventory") from None
    for dialect in (_S3, _GCS):
        if {"bucket", dialect.name} <= names:
            return dialect
    raise ConfigError(f"{_KEY}: the columns of this file have no names that are known here; give the manifest.json beside it")


def _find_root(archive: Archive, dialect: _Dialect) -> str | None:
    if archive.uri is None:
        return None
    protocol, _, path = resolve(archive.uri).rpartition("://")
    if protocol not in dialect.protocols:
        raise ConfigError(
            f"archive.uri: the inventory is of {dialect.service}; give {dialect.protocols[0]}://bucket/folder, or leave it out"
        )
    return path.rstrip("/")


def _open(location: str, archive: Archive, given: str | None = None) -> Any:
    return open_stream(location, archive.storage_options, _KEY, archive.fetch_tries, given)


def _plain(name: str) -> str:
    return name.strip().replace("_", "").lower()


def _read_file(location: str, place: int, inventory: _Inventory, archive: Archive) -> Iterator[Row]:
    """The rows of the file that is the ``place``-th, with their number under ``#`` for errors."""
    number = 0
    with _open(location, archive) as file:
        if not file.peek(1):
            return
        names, batches = _open_batches(file, place, inventory)
        _require_columns(names, inventory, archive)
        try:
            for batch in batches:
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield {"#": f"row {number} of file {place}", **dict(zip(names, values, strict=True))}
        except _BAD_FILE:
            raise ConfigError(f"{_KEY}: file {place} is damaged after row {number}; take another inventory") from None


def _open_batches(file: Any, place: int, inventory: _Inventory) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    """The names of the columns that say something, plain, and these columns as a stream."""
    wanted = inventory.dialect.columns
    try:
        if file.peek(4)[:4] == b"PAR1":
            parquet = pq.ParquetFile(file)
            used = [name for name in parquet.schema_arrow.names if _plain(name) in wanted]
            return [_plain(name) for name in used], parquet.iter_batches(batch_size=_BATCH_ROWS, columns=used)
        source = _unpack(file)
        names = inventory.columns or _read_header(source, inventory.delimiter)
        used = [name for name in names if _plain(name) in wanted]
        if not source.peek(1):  # what pyarrow takes for an error: a file without rows
            return [_plain(name) for name in used], iter(())
        batches = pa_csv.open_csv(
            source,
            pa_csv.ReadOptions(column_names=list(names), block_size=_BLOCK_BYTES),
            pa_csv.ParseOptions(delimiter=inventory.delimiter, newlines_in_values=True),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(used, pa.string()), include_columns=used),
        )
    except _BAD_FILE:
        raise ConfigError(f"{_KEY}: file {place} is neither CSV nor Parquet that can be read; take another inventory") from None
    return [_plain(name) for name in used], batches


def _unpack(file: Any) -> Any:
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file


def _read_header(source: BinaryIO, delimiter: str) -> list[str]:
    line = source.readline(_BLOCK_BYTES).decode("utf-8-sig")
    return next(csv.reader([line], delimiter=delimiter), [])


def _require_columns(names: Sequence[str], inventory: _Inventory, archive: Archive) -> None:
    needs = inventory.dialect.needs
    if inventory.dialect is _S3 and archive.storage_options.get("version_aware"):
        needs = (*needs, "VersionId")
    lacks = [name for name in needs if _plain(name) not in names]
    if lacks:
        raise ConfigError(
            f"{_KEY}: it has no column {', '.join(lacks)}; add what is missing to the configuration of the inventory at "
            f"{inventory.dialect.service} and take the next one"
        )


def _iterate(reader: _Reader, rows: Iterator[Row], allowed: Allowed, findings: Findings) -> Iterator[Recording]:
    for row in rows:
        if _is_gone(row):
            continue
        recording = reader.describe(row)
        if recording is not None and findings.lake_folders and findings.is_of_lake(recording.uri):
            continue
        findings.has_entries = True
        if recording is None:
            continue
        if recording.error is not None:
            yield recording
        elif allowed.covers(recording.uri):
            findings.allowed += 1
            yield recording
        else:
            findings.not_allowed += 1
            findings.add_place(name_place_above(recording.uri))
            detail = f"{row['#']} of the inventory names a place that archive.allowed does not hold"
            refused = make_recording(recording.uri, storage.ObjectState(storage.MISSING, 0, None))  # not the id that it has
            yield replace(refused, error=NotAllowed(refused.recording_id, detail))
    if (line := report_outside(findings, allowed, _KEY)) is not None:
        logs.log_event("inventory", line, level=logs.WARNING)


@dataclass(frozen=True)
class _Reader:
    """Makes recordings of the rows below ``root`` that ``select`` admits. ``filesystem`` is asked for nothing."""

    inventory: _Inventory
    location: str
    filesystem: Any
    select: Callable[[str, storage.ObjectState], bool]
    root: str | None

    def describe(self, row: Row) -> Recording | None:
        try:
            return self._describe(row)
        except DictalakeError:  # it would meet every row
            raise
        except Exception as error:  # whatever a row says costs that row alone
            return self._make_failed(row, f"cannot be understood ({name_place(error)})")

    def _describe(self, row: Row) -> Recording | None:
        dialect = self.inventory.dialect
        bucket, name = str(row["bucket"] or ""), str(row[dialect.name] or "")
        if not bucket or not name:
            return self._make_failed(row, "names no object")
        path = f"{bucket}/{unquote_plus(name) if self.inventory.encoded else name}"
        below = bucket if self.root is None else self.root
        if path != below and not path.startswith(f"{below}/"):
            return None
        relative = path[len(below) + 1 :] if path != below else path.rsplit("/", 1)[-1]
        if not self.select(relative, storage.ObjectState(storage.MISSING, 0, None)):
            return None  # also where the rest of the row cannot be read
        uri = storage.make_uri(self.filesystem, path)
        if is_too_long(uri):
            return self._make_failed(row, "names a place that is longer than any storage can hold")
        info = _make_info(row, dialect)
        if info is None:
            return self._make_failed(row, "has a size or time that cannot be read, or no version")
        state = storage.describe(self.filesystem, path, info)
        return make_recording(uri, state) if self.select(relative, state) else None

    def _make_failed(self, row: Row, problem: str) -> Recording:
        """What a bad row becomes. The same row at the same place keeps its id, and no object has its version."""
        digest = blake2b(repr(sorted(row.items())).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
        uri = f"{canonical_uri(self.location)}#{row['#'].replace(' ', '-')}-{digest}"
        recording_id = make_recording_id(uri, BAD_LINE_VERSION)
        error = BadManifestLine(recording_id, f"{row['#']} of the inventory {problem}")
        return Recording(recording_id, uri, BAD_LINE_VERSION, 0, error=error)


def _open_source(archive: Archive, dialect: _Dialect) -> Any:
    """It is asked for nothing, but knows how URIs and versions of this storage are written."""
    location = f"{dialect.protocols[0]}://bucket/key"
    try:
        return storage.call_with_retries(
            lambda: storage.open_location(location, archive.storage_options, _KEY)[0], archive.fetch_tries
        )
    except storage.storage_errors() as error:
        raise storage.explain(error, _KEY) from None


def _is_gone(row: Row) -> bool:
    """An earlier version, or the mark of a deletion: a listing does not show them."""
    latest, marker = str(row.get("islatest", "")).lower(), str(row.get("isdeletemarker", "")).lower()
    return latest == "false" or marker == "true" or bool(row.get("timedeleted"))


def _make_info(row: Row, dialect: _Dialect) -> dict[str, Any] | None:
    """What a listing would say of this object; None where the row does not say it."""
    info = {listed: row[column] for column, listed in dialect.info.items() if row.get(column) not in (None, "")}
    version = "generation" if dialect is _GCS else "ETag"
    if version not in info:
        return None
    try:
        info["size"] = int(info.get("size", 0))
        for name in ("LastModified", "updated"):
            if isinstance(info.get(name), str):
                info[name] = datetime.fromisoformat(info[name].replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return {**info, version: str(info[version])}
