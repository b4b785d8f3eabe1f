"""Recordings from the user's own manifest: CSV, JSON lines or Parquet with a ``uri`` column.

    uri,reference
    ward3/0001.wav,no acute fracture
    gs://bucket/0002.dcm,

Relative URIs are below ``archive.uri``, or beside the manifest without one (the embedded demo archive, which ``demo.yaml``
names, counts for the demo's own manifest alone). All other columns travel as ``metadata``. A line that cannot be used becomes
a recording with the error ``bad_manifest_line``: one line costs one row, not the run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from dictalake.archive import storage
from dictalake.archive.inventory import read_inventory
from dictalake.archive.listing import list_recordings
from dictalake.archive.manifest_parquet import read_parquet
from dictalake.archive.manifest_rows import KEY, BadRow, ManifestRow, Notes, make_bad_row
from dictalake.archive.manifest_text import read_text
from dictalake.archive.streams import open_stream
from dictalake.config.locations import EMBEDDED, resolve
from dictalake.config.sections import Archive
from dictalake.errors import BadManifestLine, ConfigError
from dictalake.records import Recording, make_recording_id

_THREADS = 16
_BATCH = 1024  # URIs asked about together, so that a manifest of millions neither waits nor fills memory
_BAD_LINE = "bad_manifest_line"  # the version of what is no object
# How the files begin that people give for a manifest by mistake
_WRONG_FILES = {
    b"PK\x03\x04": "an Excel workbook or a ZIP file; save it as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV in UTF-8",
    b"\x1f\x8b": "a gzip file; unpack it",
}

Row = ManifestRow | BadRow


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

    An object that is not there has version ``missing`` and size 0, and a line that cannot be used is a recording with an error.
    Raises ConfigError at the call for a manifest that cannot be read or has not one ``uri`` column, and while iterating for a
    damaged Parquet file; RunError where the storage does not answer.
    """
    if archive.manifest is None:
        raise ConfigError(f"{KEY} is not set; give a CSV or Parquet file with a `uri` column")
    location = resolve(archive.manifest)
    notes = Notes()
    rows = _read_rows(open_stream(location, archive.storage_options, KEY, archive.fetch_tries, archive.manifest), notes)
    manifest_uri = storage.make_uri(*storage.open_location(location, archive.storage_options, KEY))
    is_demo = archive.uri is not None and archive.uri.startswith(EMBEDDED) and not archive.manifest.startswith(EMBEDDED)
    base = manifest_uri.rsplit("/", 1)[0] if archive.uri is None or is_demo else resolve(archive.uri)
    return _describe_rows(_locate(rows, base), manifest_uri, archive, notes)


def _read_rows(file: io.BufferedReader, notes: Notes) -> Iterator[Row]:
    head = file.peek(4)[:4]
    for beginning, what in _WRONG_FILES.items():
        if head.startswith(beginning):
            raise ConfigError(f"{KEY}: the file is {what}, and give that")
    return read_parquet(file, notes) if head == b"PAR1" else read_text(file, notes)


def _locate(rows: Iterator[Row], base: str) -> Iterator[Row]:
    """Full locations."""
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            location = resolve(row.uri)
        except ConfigError:
            yield _refuse(row, "names an embedded asset that does not exist")
            continue
        if "://" not in location and not location.startswith(("/", "~")):
            location = f"{base.rstrip('/')}/{location.removeprefix('./')}"
        yield replace(row, uri=location)


def _describe_rows(rows: Iterator[Row], manifest_uri: str, archive: Archive, notes: Notes) -> Iterator[Recording]:
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as pool:
        while batch := list(islice(rows, _BATCH)):
            for recording in pool.map(lambda row: _describe(row, manifest_uri, archive), batch):
                modified_at = recording.modified_at
                if archive.since is None or modified_at is None or modified_at >= archive.since:
                    yield recording
    notes.warn()


def _describe(row: Row, manifest_uri: str, archive: Archive) -> Recording:
    if isinstance(row, BadRow):
        return _make_failed(row, manifest_uri)
    location = row.uri
    uri = location  # until the storage is known

    def ask() -> storage.ObjectState:
        nonlocal uri
        filesystem, path = storage.open_location(location, archive.storage_options, f"{KEY}: a uri in it")
        uri = storage.make_uri(filesystem, path)
        return storage.describe(filesystem, path)

    try:
        state = storage.call_with_retries(ask, archive.fetch_tries)
    except storage.UnknownStorageError:
        state = storage.ObjectState(storage.MISSING, 0, None)
    except ConfigError:
        if storage.is_archive_location(location):  # a package or an option is missing, for every line of the kind
            raise
        return _make_failed(_refuse(row, "names a kind of storage that holds no archive"), manifest_uri)
    except storage.storage_errors() as error:
        if storage.is_transient(error):  # `missing` would give all of them other ids, and rows that are not true
            raise storage.explain(error, f"{KEY}: the storage of its uris") from None
        state = storage.ObjectState(storage.MISSING, 0, None)  # `fetch` says why: not_found, access_denied
    recording_id = make_recording_id(uri, state.version)
    return Recording(recording_id, uri, state.version, state.size_bytes, state.modified_at, row.metadata)


def _refuse(row: ManifestRow, problem: str) -> BadRow:
    return make_bad_row(row.place, problem, repr((row.uri, sorted(row.metadata.items()))).encode())


def _make_failed(row: BadRow, manifest_uri: str) -> Recording:
    """The recording that a bad line becomes. The same line at the same place keeps its id, and no object has its version."""
    uri = f"{manifest_uri}#{row.place.replace(' ', '-')}-{row.digest}"
    recording_id = make_recording_id(uri, _BAD_LINE)
    error = BadManifestLine(recording_id, f"{row.place} of the manifest {row.problem}")
    return Recording(recording_id, uri, _BAD_LINE, 0, error=error)


def _drop_duplicates(recordings: Iterator[Recording]) -> Iterator[Recording]:
    seen: set[bytes] = set()
    for recording in recordings:
        key = bytes.fromhex(recording.recording_id)
        if key not in seen:
            seen.add(key)
            yield recording
