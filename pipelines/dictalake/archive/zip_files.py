"""The files inside a ZIP archive: stored and deflated members, Zip64; read in place."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

from dictalake.archive.members import Bounds, Member
from dictalake.errors import NotAudio

_ZIP_FILE, _ZIP_ENTRY, _ZIP_END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"  # a file; in the directory: an entry, the end
_OOXML, _PACKAGES = "[Content_Types].xml", ("mimetype", "META-INF/MANIFEST.MF")  # Office; OpenDocument, EPUB and Java, first


def list_zip(data: bytes, bounds: Bounds, zone: ZoneInfo, stack: ExitStack) -> tuple[list[Member], str | None]:
    """The members, and what is damaged about the archive, if anything. ``stack`` closes the archive."""
    bounds.check(data.count(_ZIP_ENTRY), 0)  # before zipfile makes an object of each
    opened = stack.enter_context(zipfile.ZipFile(io.BytesIO(data)))
    entries = opened.infolist()
    bounds.check(len(entries), sum(entry.file_size for entry in entries))
    if sum(entry.compress_size for entry in entries) > len(data):
        raise zipfile.BadZipFile("entries overlap: the same bytes would be unpacked again and again")
    if any(entry.filename == _OOXML for entry in entries) or (entries and entries[0].filename in _PACKAGES):
        raise NotAudio(bounds.recording_id, "this is an Office document, a book or a program in a ZIP archive, not recordings")
    members = [
        Member(
            entry.filename,
            entry.file_size,
            _zip_time(entry, zone),
            partial(_read_zip, opened, entry),
            _refuse_zip(entry),
        )
        for entry in entries
        if entry.file_size or not entry.is_dir()
    ]
    return members, _find_zip_damage(data, entries)


def _find_zip_damage(data: bytes, entries: Sequence[zipfile.ZipInfo]) -> str | None:
    """Whether there are more files than zipfile was told of: it believes the directory at the end, and reads as much of it as
    that says itself."""
    end = data.rfind(_ZIP_END)
    announced = int.from_bytes(data[end + 10 : end + 12], "little")
    if announced not in (len(entries) & 0xFFFF, 0xFFFF):
        return f"its directory announces {announced} files and names {len(entries)}"
    first = min((entry.header_offset for entry in entries), default=end)
    if data.find(_ZIP_FILE, 0, first) >= 0:
        return "there are files before the first one that its directory names, as where two were joined"
    return None


def _zip_time(entry: zipfile.ZipInfo, zone: ZoneInfo) -> datetime | None:
    """ZIP stores local time; 1980-01-01 is what writers put that know none."""
    try:
        return datetime(*entry.date_time, tzinfo=zone).astimezone(UTC) if entry.date_time[:3] > (1980, 1, 1) else None
    except (ValueError, OverflowError):
        return None


def _refuse_zip(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & 1:
        return "this file is encrypted inside its ZIP archive; unpack it with its password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA may ask for gigabytes to unpack a byte
        return "this file is packed in its ZIP archive by a method other than deflate; pack it again"
    return None


def _read_zip(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with opened.open(entry) as file:
        return file.read(entry.file_size)
