"""The file or files inside gzip-compressed data: inflated once into a temporary file. Runs in a sandboxed child.

A tar inside is read there; anything else is one file.
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO, cast

from dictalake.archive.members import BROKEN_GZIP, Bounds, Damage, Member
from dictalake.archive.tar_files import BLOCK, list_tar
from dictalake.audio.formats.sniff import sniff
from dictalake.errors import FetchFailed

_PIECE = 2**20


def list_gzip(file: IO[bytes], into: IO[bytes], name: str, bounds: Bounds) -> tuple[list[Member], Damage | None, int]:
    """The members, what is damaged about the archive, if anything, and how many bytes are in ``into`` then.

    A single file is called ``name``. The places of all members are those in ``into``.
    """
    try:
        damage = _inflate(file, into, bounds)
    except gzip.BadGzipFile:
        raise
    except OSError as error:  # nothing is wrong with the archive
        raise no_room(bounds.recording_id, error) from None
    size = into.tell()
    into.seek(0)
    if sniff(into.read(BLOCK)) == "tar":
        members, tar_damage = list_tar(into, bounds)
        return members, damage or tar_damage, size
    return [Member(name, size, None, (0,))] if size else [], damage, size


def no_room(recording_id: str, error: OSError) -> FetchFailed:
    """The error of a disk that is full."""
    return FetchFailed(
        recording_id,
        f"the worker's temporary folder cannot hold the unpacked archive ({type(error).__name__} {error.errno}); free space "
        "there, or set TMPDIR to a larger disk",
    )


def _inflate(file: IO[bytes], into: IO[bytes], bounds: Bounds) -> Damage | None:
    size = 0
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(cast(io.RawIOBase, file), _PIECE)) as source:
            while piece := source.read1(_PIECE):  # up to where it breaks off, where read gives nothing
                size += len(piece)
                bounds.check(0, size)
                into.write(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        if not size:
            raise
        return Damage(BROKEN_GZIP)
    return None
