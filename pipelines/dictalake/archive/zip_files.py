"""The files inside a ZIP archive: stored and deflated members, Zip64; read in place. Runs in a sandboxed child."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import IO
from zoneinfo import ZoneInfo

from dictalake.archive.members import (
    ENCRYPTED,
    JOINED,
    LONG_NAME,
    LONGEST_NAME,
    OTHER_METHOD,
    WRONG_COUNT,
    Bounds,
    Damage,
    Member,
)
from dictalake.errors import NotAudio

_ZIP_FILE, _ZIP_ENTRY, _ZIP_END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"  # a file; in the directory: an entry, the end
_OOXML, _PACKAGES = "[Content_Types].xml", ("mimetype", "META-INF/MANIFEST.MF")  # Office; OpenDocument, EPUB and Java, first
_FILE_HEADER = struct.Struct("<4s2xH18xHH")  # the signature, flags, and the lengths of the name and of what follows it
_UTF8, _PATCHED, _HIDDEN = 0x800, 0x20, 0x40  # flags
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # LZMA may ask for gigabytes to unpack a byte
_PIECE = 2**20


def list_zip(file: IO[bytes], bounds: Bounds, zone: ZoneInfo) -> tuple[list[Member], Damage | None]:
    """The members, and what is damaged about the archive, if anything."""
    length = file.seek(0, io.SEEK_END)
    begin, end = _find_directory(file)
    bounds.check(sum(1 for _ in _find_all(file, _ZIP_ENTRY, begin, end)), 0)  # before zipfile makes an object of each
    with zipfile.ZipFile(file) as opened:
        entries = opened.infolist()
    bounds.check(len(entries), sum(entry.file_size for entry in entries))
    if sum(entry.compress_size for entry in entries) > length:
        raise zipfile.BadZipFile("entries overlap: the same bytes would be unpacked again and again")
    if any(entry.filename == _OOXML for entry in entries) or (entries and entries[0].filename in _PACKAGES):
        raise NotAudio(bounds.recording_id, "this is an Office document, a book or a program in a ZIP archive, not recordings")
    members = [
        Member(
            entry.filename,
            entry.file_size,
            _zip_time(entry, zone),
            (
                entry.header_offset,
                entry.compress_size,
                entry.compress_type,
                entry.flag_bits,
                entry.CRC,
                zlib.crc32(entry.orig_filename.encode()),
            ),
            _refuse_zip(entry),
        )
        for entry in entries
        if (entry.file_size or not entry.is_dir()) and len(entry.filename) <= LONGEST_NAME
    ]
    return members, _find_zip_damage(file, length, entries)


def read_zip(file: IO[bytes], size_bytes: int, place: Sequence[int]) -> Iterator[bytes]:
    """The bytes of one member, in pieces; its checksum is compared. Raises any of DAMAGE."""
    offset, packed_bytes, method, flags, checksum, name_checksum = place
    file.seek(offset)
    signature, local_flags, name_length, more_length = _FILE_HEADER.unpack(file.read(_FILE_HEADER.size))
    if signature != _ZIP_FILE or method not in _METHODS:
        raise zipfile.BadZipFile("no file begins where the directory says")
    name = file.read(name_length).decode("utf-8" if local_flags & _UTF8 else "cp437")
    if zlib.crc32(name.encode()) != name_checksum:
        raise zipfile.BadZipFile("another file is where the directory says")
    if flags & (_PATCHED | _HIDDEN):
        raise NotImplementedError
    file.seek(more_length, io.SEEK_CUR)
    entry = zipfile.ZipInfo("member")
    entry.compress_type, entry.CRC, entry.compress_size, entry.file_size = method, checksum, packed_bytes, size_bytes
    with zipfile.ZipExtFile(file, "r", entry) as unpacked:
        left = size_bytes
        while left and (piece := unpacked.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece


def _find_zip_damage(file: IO[bytes], length: int, entries: Sequence[zipfile.ZipInfo]) -> Damage | None:
    """Whether there are more files than zipfile was told of: it believes the directory at the end, and reads as much of it as
    that says itself."""
    end = _find_end(file, length)
    file.seek(end + 10)
    announced = int.from_bytes(file.read(2), "little")
    if announced not in (len(entries) & 0xFFFF, 0xFFFF):
        return Damage(WRONG_COUNT, (announced, len(entries)))
    first = min((entry.header_offset for entry in entries), default=end)
    if next(_find_all(file, _ZIP_FILE, 0, first), None) is not None:
        return Damage(JOINED)
    if any(len(entry.filename) > LONGEST_NAME for entry in entries):
        return Damage(LONG_NAME)
    return None


def _find_directory(file: IO[bytes]) -> tuple[int, int]:
    """The part that zipfile takes for the directory. A stored ZIP among the files has one of its own, which counts nothing."""
    try:
        ended = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    except OSError:
        ended = None
    if not ended:
        raise zipfile.BadZipFile("no directory")
    end = ended[zipfile._ECD_LOCATION]  # type: ignore[attr-defined]
    if ended[zipfile._ECD_SIGNATURE] == zipfile.stringEndArchive64:  # type: ignore[attr-defined]
        end -= zipfile.sizeEndCentDir64 + zipfile.sizeEndCentDir64Locator  # type: ignore[attr-defined]
    return max(0, end - ended[zipfile._ECD_SIZE]), end  # type: ignore[attr-defined]


def _find_end(file: IO[bytes], length: int) -> int:
    """Where the directory ends: zipfile has found it within the last 64 KB, which a comment may fill."""
    begin = max(0, length - 2**17)
    return max(_find_all(file, _ZIP_END, begin, length), default=0)


def _find_all(file: IO[bytes], mark: bytes, begin: int, end: int) -> Iterator[int]:
    """Every place of ``mark`` that lies within ``[begin, end)``, piece by piece: an archive need not fit into memory."""
    kept, at = b"", begin
    file.seek(begin)
    while at < end and (piece := file.read(min(_PIECE, end - at))):
        window, start = kept + piece, at - len(kept)
        found = window.find(mark)
        while found >= 0:
            yield start + found
            found = window.find(mark, found + len(mark))
        kept = window[-(len(mark) - 1) :]
        at += len(piece)
        file.seek(at)


def _zip_time(entry: zipfile.ZipInfo, zone: ZoneInfo) -> datetime | None:
    """ZIP stores local time; 1980-01-01 is what writers put that know none."""
    try:
        return datetime(*entry.date_time, tzinfo=zone).astimezone(UTC) if entry.date_time[:3] > (1980, 1, 1) else None
    except (ValueError, OverflowError):
        return None


def _refuse_zip(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & 1:
        return ENCRYPTED
    return None if entry.compress_type in _METHODS else OTHER_METHOD
