"""Archives of files taken apart: each file inside becomes a recording of its own.

======  ==============================================================================================
zip     stored and deflated members, Zip64; read in place
tar     ustar, GNU and PAX, several one after the other too; read in place
gzip    inflated once into a nameless temporary file; a tar inside is read there, else it is one file
======  ==============================================================================================

What an archive announces is not believed: the number of members, what they hold together, and the length of each header are
bounded (``limits.members``, ``limits.expanded_mb``), and a member is read to no more than its own size says. An archive inside
an archive is not opened. Links, folders and devices are no members: what a link names is a member itself.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import IO
from zoneinfo import ZoneInfo

from dictalake.archive.listing import compile_globs
from dictalake.audio.formats.sniff import sniff
from dictalake.config.sections import Archive, Limits
from dictalake.errors import (
    CorruptAudio,
    ExpandsTooLarge,
    FetchFailed,
    LoadError,
    NoAudio,
    NotAudio,
    ObjectTooLarge,
    TooManyMembers,
    UnsupportedContainer,
)
from dictalake.records import Recording, make_recording_id

KINDS = ("zip", "tar", "gzip")
_ZIP_FILE, _ZIP_ENTRY, _ZIP_END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"  # a file; in the directory: an entry, the end
_LARGEST_HEADER = 2**16  # bytes: a tar's extended header holds names and times
_LONGEST_NAME = 4096
_MOST_GLOBALS = 16  # headers of a tar that are for all members; below 512 octal bytes each
_ENDLESS = re.compile(rb"\d{64}")  # tarfile looks for numbers in a time that grows with the square of their length
_PIECE = 2**20
_BLOCK = 512  # of a tar
_OOXML, _PACKAGES = "[Content_Types].xml", ("mimetype", "META-INF/MANIFEST.MF")  # Office; OpenDocument, EPUB and Java, first
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    struct.error,
    RuntimeError,  # NotImplementedError and RecursionError are among these
    OverflowError,
)


@dataclass(frozen=True)
class Member:
    """One file inside; ``name`` is its path there, ``refusal`` why it cannot be read, if so. ``read`` raises one of _DAMAGE."""

    name: str
    size_bytes: int
    modified_at: datetime | None
    read: Callable[[], bytes]
    refusal: str | None = None


@dataclass(frozen=True)
class Contents:
    """What is inside one archive object. ``damage`` says why there may have been more than what was found, None if not so."""

    recording: Recording
    members: tuple[tuple[Recording, Member], ...]
    damage: str | None

    @property
    def rows(self) -> int:
        """One for each file, and one for the object itself where not all of it can be read."""
        return len(self.members) + (self.damage is not None)

    def read(self, recording: Recording, member: Member, limits: Limits) -> bytes:
        """The bytes of one member. Raises ObjectTooLarge, UnsupportedContainer or CorruptAudio."""
        check_size(member.size_bytes, recording.recording_id, limits)
        if member.refusal:
            raise UnsupportedContainer(recording.recording_id, member.refusal)
        try:
            data = member.read()
        except _DAMAGE as error:
            raise CorruptAudio(
                recording.recording_id,
                f"this file is damaged inside its archive ({type(error).__name__}); pack or upload the archive again",
            ) from None
        if len(data) < member.size_bytes:
            raise CorruptAudio(recording.recording_id, "the archive ends in the middle of this file; upload it again")
        if sniff(data) in KINDS:
            raise UnsupportedContainer(
                recording.recording_id, "this is an archive inside an archive; unpack the outer one and upload what is in it"
            )
        return data


def check_size(size_bytes: int, recording_id: str, limits: Limits) -> None:
    """Raises ObjectTooLarge beyond ``limits.object_mb``."""
    if size_bytes > limits.object_mb * 1e6:
        raise ObjectTooLarge(
            recording_id,
            f"it has {size_bytes / 1e6:.1f} MB, limits.object_mb allows {limits.object_mb:g}: split it, or raise the limit",
        )


@contextmanager
def open_members(data: bytes, kind: str, recording: Recording, archive: Archive, limits: Limits) -> Iterator[Contents]:
    """The files inside ``data``, an archive object of ``kind`` (one of KINDS), that ``archive.member_include`` admits.

    Each is a recording ``uri#name`` that knows the archive object it is of, and how many rows that makes. Raises CorruptAudio
    (cannot be opened at all), NoAudio (no files), NotAudio (an Office document), TooManyMembers, ExpandsTooLarge or FetchFailed
    (no room to unpack it).
    """
    with ExitStack() as stack:
        try:
            members, damage = _open(data, kind, recording, archive, limits, stack)
        except LoadError:
            raise
        except _DAMAGE as error:
            raise CorruptAudio(
                recording.recording_id,
                f"this {kind} archive cannot be opened ({type(error).__name__}); it may be cut short: upload it again",
            ) from None
        admits = compile_globs(archive.member_include, "archive.member_include")
        members = [member for member in members if admits(member.name.removeprefix("./").lstrip("/"))]
        if not members and damage is None:
            raise NoAudio(recording.recording_id, f"this {kind} archive holds no file that archive.member_include admits")
        yield Contents(recording, tuple(_name_all(members, recording, damage is not None)), damage)


def _name_all(members: Iterable[Member], of: Recording, is_damaged: bool) -> Iterator[tuple[Recording, Member]]:
    """A name that comes again (tar appends newer versions) is told apart: ``name~2``."""
    named: dict[str, Member] = {}
    times: Counter[str] = Counter()
    for member in members:
        name = member.name
        while name in named:
            times[member.name] += 1
            name = f"{member.name}~{times[member.name] + 1}"
        named[name] = member
    rows = len(named) + is_damaged
    for name, member in named.items():
        uri = f"{of.uri}#{name}"
        recording_id = make_recording_id(uri, of.version)
        recording = replace(
            of,
            recording_id=recording_id,
            attempt=of.member_attempts.get(recording_id, 0),
            uri=uri,
            size_bytes=member.size_bytes,
            modified_at=member.modified_at or of.modified_at,
            archive_id=of.recording_id,
            archive_rows=rows,
            done_members=(),
            member_attempts={},
        )
        yield recording, member


def _open(
    data: bytes, kind: str, recording: Recording, archive: Archive, limits: Limits, stack: ExitStack
) -> tuple[list[Member], str | None]:
    bounds = _Bounds(recording.recording_id, limits)
    if kind == "zip":
        return _open_zip(data, bounds, ZoneInfo(archive.time_zone), stack)
    if kind == "tar":
        return _open_tar(io.BytesIO(data), bounds)
    try:
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        damage = _inflate(data, file, bounds)
    except gzip.BadGzipFile:
        raise
    except OSError as error:  # nothing is wrong with the archive
        raise FetchFailed(
            recording.recording_id,
            f"the worker's temporary folder cannot hold what the archive unpacks to ({type(error).__name__} {error.errno}); "
            "free space there, or set TMPDIR to a larger disk",
        ) from None
    file.seek(0)
    if sniff(file.read(_BLOCK)) == "tar":
        members, tar_damage = _open_tar(file, bounds)
        return members, damage or tar_damage
    size = file.seek(0, io.SEEK_END)
    name = recording.uri.rsplit("/", 1)[-1]
    name = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return [Member(name, size, None, partial(_read_part, file, 0, size))] if size else [], damage


@dataclass
class _Bounds:
    """How much one archive object may hold, and how much it was found to hold so far."""

    recording_id: str
    limits: Limits
    members: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Counts one member."""
        self.members, self.size_bytes = self.members + 1, self.size_bytes + size_bytes
        self.check(self.members, self.size_bytes)

    def check(self, members: int, size_bytes: int) -> None:
        if members > self.limits.members:
            raise TooManyMembers(
                self.recording_id,
                f"the archive holds more than the {self.limits.members} files of limits.members; split it, or raise the limit",
            )
        if size_bytes > self.limits.expanded_mb * 1e6:
            raise ExpandsTooLarge(
                self.recording_id,
                f"the archive unpacks to more than the {self.limits.expanded_mb:g} MB of limits.expanded_mb; split it, or "
                "raise the limit if it is to be trusted",
            )


def _inflate(data: bytes, into: IO[bytes], bounds: _Bounds) -> str | None:
    size = 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as source:
            while piece := source.read1(_PIECE):  # up to where it breaks off, where read gives nothing
                size += len(piece)
                bounds.check(0, size)
                into.write(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        if not size:
            raise
        return "its gzip compression is damaged or cut short"
    return None


def _open_zip(data: bytes, bounds: _Bounds, zone: ZoneInfo, stack: ExitStack) -> tuple[list[Member], str | None]:
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


class _Headers:
    """A tar as tarfile may see it while it lists the members: it reads headers only, and none that is there to exhaust it.

    Names and times fit into a few kilobytes. Refused are sparse files (a few bytes stand for gigabytes, in any number of
    pieces), headers for all members that say more than a comment, and endless numbers.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._globals = 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        data = self._file.read(size)
        kind = data[156:157] if _is_header(data) else b""
        self._globals += kind == b"g"
        if kind == b"S" or b"GNU.sparse" in data or _ENDLESS.search(data):
            raise tarfile.ReadError("sparse, or not meant to be read")
        if self._globals > _MOST_GLOBALS or (kind == b"g" and data[124:132].strip(b"0 \0")):
            raise tarfile.ReadError("headers for all members")
        return data

    def seek(self, at: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(at, whence)

    def tell(self) -> int:
        return self._file.tell()


def _is_header(block: bytes) -> bool:
    """By its checksum, as tarfile sees it: older ones have no other mark."""
    try:
        return len(block) == _BLOCK and tarfile.nti(block[148:156]) in tarfile.calc_chksums(block)  # type: ignore[attr-defined]
    except tarfile.HeaderError:
        return False


def _open_tar(file: IO[bytes], bounds: _Bounds) -> tuple[list[Member], str | None]:
    """Also of several tars one after the other: what stands behind the mark of an end is looked at."""
    found: list[Member] = []
    at: int | None = 0
    while at is not None:
        try:
            at = _find_content(file, _list_tar(file, at, bounds, found))
        except _DAMAGE:
            if not found:
                raise
            return found, "it is cut short, damaged in the middle, or has headers that no recording needs"
    return found, None


def _list_tar(file: IO[bytes], at: int, bounds: _Bounds, found: list[Member]) -> int:
    """Adds to ``found`` the files of the tar that begins at ``at``; returns where it ends. Raises one of _DAMAGE."""
    file.seek(at)
    with tarfile.TarFile(fileobj=_Headers(file), mode="r") as opened:  # type: ignore[arg-type]
        while (entry := opened.next()) is not None:
            opened.members.clear()  # type: ignore[attr-defined]  # it would keep every header
            if entry.size < 0 or len(entry.name) > _LONGEST_NAME:
                raise tarfile.ReadError("no size and no name that a file has")
            bounds.add(entry.size)
            # Of a kind that is not known, what has content counts as a file (POSIX, ustar interchange format).
            known = entry.isdir() or entry.islnk() or entry.issym() or entry.isdev()
            if entry.isreg() or (entry.size and not known):
                name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                read = partial(_read_part, file, entry.offset_data, entry.size)
                found.append(Member(name, entry.size, _tar_time(entry), read))
        end = opened.offset
    file.seek(end)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK or block.strip(b"\0"):  # tarfile takes a damaged header for the end, which is a block of zeros
        raise tarfile.ReadError("a header in the middle is damaged, or the end is missing")
    return end


def _find_content(file: IO[bytes], at: int) -> int | None:
    """The first block from ``at`` on that is not all zeros."""
    file.seek(at)
    while piece := file.read(_PIECE):
        content = len(piece) - len(piece.lstrip(b"\0"))
        if content < len(piece):
            return at + content // _BLOCK * _BLOCK
        at += len(piece)
    return None


def _tar_time(entry: tarfile.TarInfo) -> datetime | None:
    try:
        return datetime.fromtimestamp(entry.mtime, UTC) if entry.mtime > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def _read_part(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
