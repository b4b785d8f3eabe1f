"""The files inside a TAR archive: ustar, GNU and PAX, also several archives one after the other; read in place.

Runs in a sandboxed child.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import IO

from dictalake.archive.members import BROKEN_TAR, DAMAGE, LONGEST_NAME, Bounds, Damage, Member

_LARGEST_HEADER = 2**16  # bytes: a tar's extended header holds names and times
_MOST_GLOBALS = 16  # headers of a tar that are for all members; below 512 octal bytes each
_ENDLESS = re.compile(rb"\d{64}")  # tarfile looks for numbers in a time that grows with the square of their length
_PIECE = 2**20
BLOCK = 512  # bytes: a tar is made of these


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
        return len(block) == BLOCK and tarfile.nti(block[148:156]) in tarfile.calc_chksums(block)  # type: ignore[attr-defined]
    except tarfile.HeaderError:
        return False


def list_tar(file: IO[bytes], bounds: Bounds) -> tuple[list[Member], Damage | None]:
    """Also of several tars one after the other: what stands behind the mark of an end is looked at."""
    found: list[Member] = []
    at: int | None = 0
    while at is not None:
        try:
            at = _find_content(file, _list_one_tar(file, at, bounds, found))
        except DAMAGE:
            if not found:
                raise
            return found, Damage(BROKEN_TAR)
    return found, None


def _list_one_tar(file: IO[bytes], at: int, bounds: Bounds, found: list[Member]) -> int:
    """Adds to ``found`` the files of the tar that begins at ``at``; returns where it ends. Raises one of DAMAGE."""
    file.seek(at)
    with tarfile.TarFile(fileobj=_Headers(file), mode="r") as opened:  # type: ignore[arg-type]
        while (entry := opened.next()) is not None:
            opened.members.clear()  # type: ignore[attr-defined]  # it would keep every header
            if entry.size < 0 or len(entry.name) > LONGEST_NAME:
                raise tarfile.ReadError("no size and no name that a file has")
            bounds.add(entry.size)
            # Of a kind that is not known, what has content counts as a file (POSIX, ustar interchange format).
            known = entry.isdir() or entry.islnk() or entry.issym() or entry.isdev()
            if entry.isreg() or (entry.size and not known):
                name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                found.append(Member(name, entry.size, _tar_time(entry), (entry.offset_data,)))
        end = opened.offset
    file.seek(end)
    block = file.read(BLOCK)
    if len(block) < BLOCK or block.strip(b"\0"):  # tarfile takes a damaged header for the end, which is a block of zeros
        raise tarfile.ReadError("a header in the middle is damaged, or the end is missing")
    return end


def read_range(file: IO[bytes], size_bytes: int, place: Sequence[int]) -> Iterator[bytes]:
    """The bytes of one file that lies in one piece, fewer where the archive ends earlier."""
    file.seek(place[0])
    while size_bytes and (piece := file.read(min(size_bytes, _PIECE))):
        size_bytes -= len(piece)
        yield piece


def _find_content(file: IO[bytes], at: int) -> int | None:
    """The first block from ``at`` on that is not all zeros."""
    file.seek(at)
    while piece := file.read(_PIECE):
        content = len(piece) - len(piece.lstrip(b"\0"))
        if content < len(piece):
            return at + content // BLOCK * BLOCK
        at += len(piece)
    return None


def _tar_time(entry: tarfile.TarInfo) -> datetime | None:
    try:
        return datetime.fromtimestamp(entry.mtime, UTC) if entry.mtime > 0 else None
    except (ValueError, OverflowError, OSError):
        return None
