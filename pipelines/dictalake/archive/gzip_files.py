"""The file or files inside gzip-compressed data: inflated once into a nameless temporary file.

A tar inside is read there; anything else is one file.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from contextlib import ExitStack
from functools import partial
from typing import IO

from dictalake.archive.members import Bounds, Member, read_part
from dictalake.archive.tar_files import BLOCK, list_tar
from dictalake.audio.formats.sniff import sniff
from dictalake.errors import FetchFailed

_PIECE = 2**20


def list_gzip(data: bytes, uri: str, bounds: Bounds, stack: ExitStack) -> tuple[list[Member], str | None]:
    """The members, and what is damaged about the archive, if anything. ``stack`` closes the temporary file.

    A single file is called what ``uri`` is called, without ``.gz``.
    """
    try:
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        damage = _inflate(data, file, bounds)
    except gzip.BadGzipFile:
        raise
    except OSError as error:  # nothing is wrong with the archive
        raise FetchFailed(
            bounds.recording_id,
            f"the worker's temporary folder cannot hold the unpacked archive ({type(error).__name__} {error.errno}); free "
            "space there, or set TMPDIR to a larger disk",
        ) from None
    file.seek(0)
    if sniff(file.read(BLOCK)) == "tar":
        members, tar_damage = list_tar(file, bounds)
        return members, damage or tar_damage
    size = file.seek(0, io.SEEK_END)
    name = uri.rsplit("/", 1)[-1]
    name = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return [Member(name, size, None, partial(read_part, file, 0, size))] if size else [], damage


def _inflate(data: bytes, into: IO[bytes], bounds: Bounds) -> str | None:
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
