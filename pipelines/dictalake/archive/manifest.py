"""Recordings from the user's own manifest: CSV, JSON lines or Parquet with a ``uri`` column.

    uri,reference
    ward3/0001.wav,no acute fracture
    gs://bucket/0002.dcm,

Relative URIs are below ``archive.uri``, or beside the manifest without one (the embedded demo archive, which ``demo.yaml``
names, counts for the demo's own manifest alone). All other columns travel as ``metadata``. A line that cannot be used becomes
a recording with the error ``bad_manifest_line``, and one that names a place outside ``archive.allowed`` (places.py) one with
the error ``not_allowed``: one line costs one row, not the run.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from dictalake import logs
from dictalake.archive import storage
from dictalake.archive.findings import Findings
from dictalake.archive.inventory import read_inventory
from dictalake.archive.listing import list_recordings, make_recording, name_ending
from dictalake.archive.manifest_parquet import read_parquet
from dictalake.archive.manifest_rows import KEY, BadRow, Line, ManifestRow, Notes, make_bad_row
from dictalake.archive.manifest_text import read_text
from dictalake.archive.places import Allowed, find_base, find_bucket, join_base, name_place_above, report_outside
from dictalake.archive.streams import open_stream
from dictalake.config.locations import resolve
from dictalake.config.sections import Archive
from dictalake.config.uris import canonical_uri, find_path, is_too_long, spelled_uri, split_scheme
from dictalake.errors import BadManifestLine, ConfigError, DictalakeError, NotAllowed, name_place
from dictalake.records import BAD_LINE_VERSION, Recording, make_recording_id

_THREADS = 16
_BATCH = 1024  # URIs asked about together, so that a manifest of millions neither waits nor fills memory
# How the files begin that people give for a manifest by mistake
_WRONG_FILES = {
    b"PK\x03\x04": "an Excel workbook or a ZIP file; save it as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV in UTF-8",
    b"\x1f\x8b": "a gzip file; unpack it",
}

Row = ManifestRow | BadRow
Made = TypeVar("Made")


def find_recordings(archive: Archive, findings: Findings | None = None) -> Iterator[Recording]:
    """The recordings of ``archive.manifest`` or ``archive.inventory`` if one is given, else those listed below
    ``archive.uri``; each id once. ``findings`` takes in what else is there.

    Raises ConfigError or RunError at the call where the place cannot be read at all, and ConfigError where none is given.
    """
    return _drop_duplicates(scan_recordings(archive, findings))


def scan_recordings(archive: Archive, findings: Findings | None = None) -> Iterator[Recording]:
    """As ``find_recordings``, but a recording named twice comes twice: memory does not grow with their number."""
    if archive.manifest is not None and archive.inventory is not None:
        raise ConfigError(
            "archive.manifest and archive.inventory are both set, and each names the recordings; give one of them"
        )
    if archive.manifest is not None:
        return read_manifest(archive, findings)
    if archive.inventory is not None:
        return read_inventory(archive, findings)
    if archive.uri is not None:
        return list_recordings(archive, findings)
    raise ConfigError(
        "archive.uri or archive.manifest must be set: a folder or bucket to list, or a CSV or Parquet of URIs; "
        "or archive.inventory, what the storage wrote of a bucket"
    )


def read_manifest(archive: Archive, findings: Findings | None = None) -> Iterator[Recording]:
    """One Recording for each row, in the manifest's order, ``since`` applied.

    An object that is not there has version ``missing`` and size 0, and a line that cannot be used is a recording with an error.
    Raises ConfigError at the call for a manifest that cannot be read or has not one ``uri`` column, while iterating for a
    damaged Parquet file, and at the end where no line names a place that is allowed; RunError where the storage does not
    answer.
    """
    if archive.manifest is None:
        raise ConfigError(f"{KEY} is not set; give a CSV or Parquet file with a `uri` column")
    location = resolve(archive.manifest)
    base = find_base(archive, location)
    allowed = Allowed(archive, base if archive.uri is not None else find_bucket(base))
    notes = Notes()
    lines = _read_lines(open_stream(location, archive.storage_options, KEY, archive.fetch_tries, archive.manifest), notes)
    reader = _Reader(archive, base, spelled_uri(location), allowed)
    return _describe_lines(lines, reader, notes, Findings() if findings is None else findings)


def _read_lines(file: io.BufferedReader, notes: Notes) -> Iterator[Line]:
    head = file.peek(4)[:4]
    for beginning, what in _WRONG_FILES.items():
        if head.startswith(beginning):
            raise ConfigError(f"{KEY}: the file is {what}, and give that")
    return read_parquet(file, notes) if head == b"PAR1" else read_text(file, notes)


def _describe_lines(lines: Iterator[Line], reader: _Reader, notes: Notes, findings: Findings) -> Iterator[Recording]:
    since = reader.archive.since
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as pool:
        while batch := list(islice(lines, _BATCH)):
            parsed = [(line, _capture(line, line.parse)) for line in batch]  # here, where the notes are taken in order
            given = [(line, row) for line, row in parsed if row is not None]
            for recording in pool.map(lambda pair: reader.describe(*pair), given):
                is_outside = isinstance(recording.error, NotAllowed)
                findings.not_allowed += is_outside
                findings.allowed += recording.error is None
                if is_outside:
                    findings.add_place(name_place_above(recording.uri))
                modified_at = recording.modified_at
                if since is None or modified_at is None or modified_at >= since:
                    yield recording
    notes.warn()
    if (line := report_outside(findings, reader.allowed, KEY)) is not None:
        logs.log_event("manifest", line, level=logs.WARNING)


def _capture(line: Line, make: Callable[[], Made]) -> Made | BadRow:
    """What ``make`` makes of a line, or that nothing can be made of it. This is the only place that catches everything."""
    try:
        return make()
    except DictalakeError:  # it would meet every line
        raise
    except Exception as error:  # whatever a line says costs that line alone
        return make_bad_row(line.place, f"cannot be understood ({name_place(error)})", line.content)


@dataclass(frozen=True)
class _Reader:
    """Makes recordings of rows. ``base`` is what relative URIs are below."""

    archive: Archive
    base: str
    manifest_uri: str
    allowed: Allowed

    def describe(self, line: Line, row: Row) -> Recording:
        made = row if isinstance(row, BadRow) else _capture(line, lambda: self._describe(row))
        return self._make_failed(made) if isinstance(made, BadRow) else made

    def _describe(self, row: ManifestRow) -> Recording | BadRow:
        try:
            location = join_base(self.base, resolve(row.uri))
        except ConfigError:
            return _refuse(row, "names an embedded asset that does not exist")
        if is_too_long(location):
            return _refuse(row, "names a place that is longer than any storage can hold")
        if not storage.is_archive_location(location) and split_scheme(location)[0] != split_scheme(self.base)[0]:
            return _refuse(row, "names a kind of storage that holds no archive")
        if "\0" in location:
            return _refuse(row, "holds a NUL byte")
        uri = canonical_uri(location)  # once: it follows links, which may lead elsewhere a moment later
        if not self.allowed.covers(location, uri):
            recording = self._make(row, location, uri, storage.ObjectState(storage.MISSING, 0, None))
            detail = f"{row.place} of the manifest names a place that archive.allowed does not hold"
            return replace(recording, error=NotAllowed(recording.recording_id, detail))
        return self._make(row, location, uri, self._ask(uri))

    def _ask(self, uri: str) -> storage.ObjectState:
        def ask() -> storage.ObjectState:
            path = find_path(uri)
            if path is not None:
                return storage.describe_local(path)
            return storage.describe(*storage.open_location(uri, self.archive.storage_options, f"{KEY}: a uri in it"))

        try:
            return storage.call_with_retries(ask, self.archive.fetch_tries)
        except storage.storage_errors() as error:
            if storage.is_transient(error):  # `missing` would give all of them other ids, and rows that are not true
                raise storage.explain(error, f"{KEY}: the storage of its uris") from None
            return storage.ObjectState(storage.MISSING, 0, None)  # `fetch` says why: not_found, access_denied

    def _make(self, row: ManifestRow, location: str, uri: str, state: storage.ObjectState) -> Recording:
        old = spelled_uri(location)
        recording = make_recording(uri, state)
        named = replace(recording, metadata=row.metadata, old_uris=(old,) if old != uri else ())
        return named if find_path(location) is None else name_ending(named, location, self.archive)

    def _make_failed(self, row: BadRow) -> Recording:
        """What a bad line becomes. The same line at the same place keeps its id, and no object has its version."""
        mark = f"#{row.place.replace(' ', '-')}-{row.digest}"
        uri = f"{canonical_uri(self.manifest_uri)}{mark}"
        recording_id = make_recording_id(uri, BAD_LINE_VERSION)
        error = BadManifestLine(recording_id, f"{row.place} of the manifest {row.problem}")
        return Recording(recording_id, uri, BAD_LINE_VERSION, 0, error=error, old_uris=(f"{self.manifest_uri}{mark}",))


def _refuse(row: ManifestRow, problem: str) -> BadRow:
    return make_bad_row(row.place, problem, repr((row.uri, sorted(row.metadata.items()))).encode())


def _drop_duplicates(recordings: Iterator[Recording]) -> Iterator[Recording]:
    seen: set[bytes] = set()
    for recording in recordings:
        key = bytes.fromhex(recording.recording_id)
        if key not in seen:
            seen.add(key)
            yield recording
