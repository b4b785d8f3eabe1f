"""Recordings from the user's own manifest, a CSV or Parquet file with a ``uri`` column.

    uri,reference
    ward3/0001.wav,no acute fracture
    gs://bucket/0002.dcm,

Relative URIs are below ``archive.uri``, or beside the manifest without one (the embedded demo archive, which ``demo.yaml``
names, counts for the demo's own manifest alone). All other columns travel as ``metadata``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dictalake.archive import storage
from dictalake.archive.inventory import read_inventory
from dictalake.archive.listing import list_recordings
from dictalake.archive.streams import open_stream
from dictalake.config.locations import EMBEDDED, resolve
from dictalake.config.sections import Archive
from dictalake.errors import ConfigError
from dictalake.records import Recording, make_recording_id

_KEY = "archive.manifest"
_THREADS = 16
_LIKELY_NAMES = ("url", "uris", "path", "file", "filename", "file_name", "audio", "location")
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")
_BATCH = 1024  # URIs asked about together, so that a manifest of millions neither waits nor fills memory

Row = tuple[str, dict[str, str]]


def find_recordings(archive: Archive) -> Iterator[Recording]:
    """The recordings of ``archive.manifest`` or ``archive.inventory`` if one is given, else those listed below
    ``archive.uri``; each id once.

    Raises ConfigError or RunError at the call where the place cannot be read at all, and ConfigError where none is given.
    """
    return _drop_duplicates(scan_recordings(archive))


def scan_recordings(archive: Archive) -> Iterator[Recording]:
    """As ``find_recordings``, but a recording named twice comes twice: memory does not grow with their number."""
    if archive.manifest is not None and archive.inventory is not None:
        raise ConfigError(
            "archive.manifest and archive.inventory are both set, and each names the recordings; give one of them"
        )
    if archive.manifest is not None:
        return read_manifest(archive)
    if archive.inventory is not None:
        return read_inventory(archive)
    if archive.uri is not None:
        return list_recordings(archive)
    raise ConfigError(
        "archive.uri or archive.manifest must be set: a folder or bucket to list, or a CSV or Parquet of URIs; "
        "or archive.inventory, what the storage wrote of a bucket"
    )


def read_manifest(archive: Archive) -> Iterator[Recording]:
    """One Recording for each row, in the manifest's order, ``since`` applied.

    An object that is not there has version ``missing`` and size 0. Raises ConfigError at the call for a manifest that cannot
    be read or has no ``uri`` column, and while iterating for a broken line; RunError where the storage does not answer.
    """
    if archive.manifest is None:
        raise ConfigError(f"{_KEY} is not set; give a CSV or Parquet file with a `uri` column")
    location = resolve(archive.manifest)
    file = open_stream(location, archive.storage_options, _KEY, archive.fetch_tries, archive.manifest)
    rows = _read_parquet(file) if file.peek(4)[:4] == b"PAR1" else _read_csv(file)
    is_demo = archive.uri is not None and archive.uri.startswith(EMBEDDED) and not archive.manifest.startswith(EMBEDDED)
    if archive.uri is not None and not is_demo:
        base = resolve(archive.uri)
    else:
        base = storage.make_uri(*storage.open_location(location, archive.storage_options, _KEY)).rsplit("/", 1)[0]
    return _describe_rows(_locate(rows, base), archive)


def _read_csv(file: BinaryIO) -> Iterator[Row]:
    reader = csv.reader(_decode_lines(file), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error:
        raise ConfigError(f"{_KEY}: the first line is not CSV") from None
    _require_uri(names)
    return _iterate_csv(reader, names)


def _decode_lines(file: BinaryIO) -> Iterator[str]:
    """Lines of UTF-8 with their ends, whichever these are, with or without a byte order mark."""
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    for number, line in enumerate(text, 1):
        if not line.isascii() and _NOT_UTF_8.search(line):
            raise ConfigError(f"{_KEY}: line {number} is not UTF-8; save the file as CSV in UTF-8, or as Parquet")
        yield line


def _iterate_csv(reader: Any, names: list[str]) -> Iterator[Row]:
    try:
        for values in reader:
            if not values:
                continue
            if len(values) > len(names):
                raise ConfigError(
                    f"{_KEY}: line {reader.line_num} has {len(values)} fields, the first line names {len(names)}; quote commas"
                )
            yield _make_row(zip(names, values, strict=False), f"line {reader.line_num}")
    except csv.Error:
        raise ConfigError(f"{_KEY}: line {reader.line_num} is not CSV (a quote that is not closed?)") from None


def _read_parquet(source: BinaryIO) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(source)
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{_KEY}: the file begins like Parquet but cannot be read; write it again") from None
    names = list(file.schema_arrow.names)
    _require_uri(names)
    return _iterate_parquet(file, names)


def _iterate_parquet(file: pq.ParquetFile, names: list[str]) -> Iterator[Row]:
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield _make_row(zip(names, values, strict=True), f"row {number}")
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{_KEY}: the Parquet file is damaged after row {number}; write it again") from None


def _require_uri(names: list[str]) -> None:
    if "uri" in names:
        return
    # A file without a header shows data in its first line, and data may be a patient's: the names are not repeated.
    likely = next((name for name in names if name.strip().lower() in _LIKELY_NAMES), None)
    hint = f"; rename the column `{likely}` to `uri`" if likely else "; the first line must name the columns"
    raise ConfigError(f"{_KEY}: none of its {len(names)} columns is called `uri`{hint}")


def _make_row(fields: Iterable[tuple[str, Any]], place: str) -> Row:
    """Null, and an empty field of a CSV, is an absent key."""
    row = {name: value if isinstance(value, str) else str(value) for name, value in fields if value is not None and value != ""}
    uri = row.pop("uri", "").strip()
    if not uri:
        raise ConfigError(f"{_KEY}: {place} has no uri")
    return uri, row


def _locate(rows: Iterator[Row], base: str) -> Iterator[Row]:
    """Full locations."""
    for uri, metadata in rows:
        location = resolve(uri)
        if "://" not in location and not location.startswith(("/", "~")):
            location = f"{base.rstrip('/')}/{location.removeprefix('./')}"
        yield location, metadata


def _describe_rows(rows: Iterator[Row], archive: Archive) -> Iterator[Recording]:
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as pool:
        while batch := list(islice(rows, _BATCH)):
            for recording in pool.map(lambda row: _describe(row, archive), batch):
                modified_at = recording.modified_at
                if archive.since is None or modified_at is None or modified_at >= archive.since:
                    yield recording


def _describe(row: Row, archive: Archive) -> Recording:
    location, metadata = row
    uri = location  # until the storage is known

    def ask() -> storage.ObjectState:
        nonlocal uri
        filesystem, path = storage.open_location(location, archive.storage_options, f"{_KEY}: a uri in it")
        uri = storage.make_uri(filesystem, path)
        return storage.describe(filesystem, path)

    try:
        state = storage.call_with_retries(ask, archive.fetch_tries)
    except storage.UnknownStorageError:
        state = storage.ObjectState(storage.MISSING, 0, None)
    except storage.storage_errors() as error:
        if storage.is_transient(error):  # `missing` would give all of them other ids, and rows that are not true
            raise storage.explain(error, f"{_KEY}: the storage of its uris") from None
        state = storage.ObjectState(storage.MISSING, 0, None)  # `fetch` says why: not_found, access_denied
    return Recording(make_recording_id(uri, state.version), uri, state.version, state.size_bytes, state.modified_at, metadata)


def _drop_duplicates(recordings: Iterator[Recording]) -> Iterator[Recording]:
    seen: set[bytes] = set()
    for recording in recordings:
        key = bytes.fromhex(recording.recording_id)
        if key not in seen:
            seen.add(key)
            yield recording
