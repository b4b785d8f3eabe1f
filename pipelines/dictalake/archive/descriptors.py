"""Bytes as open descriptors, for handing them to a sandboxed child. All are nameless: they go with their last holder."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from hashlib import sha256

from dictalake.records import Data

MOST_IN_MEMORY = 32_000_000  # bytes; more lie in a temporary file
_PIECE = 2**24
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # against further seals, shrinking, growing, writing
_ADD_SEALS = 1033


@contextlib.contextmanager
def open_bytes(data: Data) -> Iterator[int]:
    """A descriptor of ``data`` and of nothing else. Whoever holds it can only read."""
    if isinstance(data, MappedFile) and data.descriptor is not None:
        yield data.descriptor
        return
    descriptor = _seal_in_memory(data) if len(data) <= MOST_IN_MEMORY and hasattr(os, "memfd_create") else _write_out(data)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_empty() -> Iterator[tuple[int, int]]:
    """A temporary file: a descriptor that can write to it, and one that can only read it."""
    writable, path = tempfile.mkstemp()
    try:
        try:
            readable = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.unlink(path)
        try:
            yield writable, readable
        finally:
            os.close(readable)
    finally:
        os.close(writable)


class MappedFile(mmap.mmap):
    """A file as bytes; ``descriptor`` can only read it, and is closed with it. None where the machine gives no second one."""

    descriptor: int | None = None


def map_file(descriptor: int, length: int) -> MappedFile:
    """The first ``length`` bytes as bytes. Nobody may be left who can make the file shorter."""
    mapped = MappedFile(descriptor, length, access=mmap.ACCESS_READ)
    with contextlib.suppress(OSError):
        mapped.descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(mapped, os.close, mapped.descriptor)
    return mapped


def iterate_pieces(data: Data) -> Iterator[memoryview]:
    """``data`` from begin to end. Of a mapped file no more than a piece is in memory for it."""
    with memoryview(data) as view:
        for at in range(0, len(view), _PIECE):
            with view[at : at + _PIECE] as piece:
                yield piece
            if isinstance(data, mmap.mmap):
                data.madvise(mmap.MADV_DONTNEED, at, min(_PIECE, len(view) - at))


def find_sha256(data: Data) -> str:
    """In hexadecimal digits."""
    digest = sha256()
    for piece in iterate_pieces(data):
        digest.update(piece)
    return digest.hexdigest()


def _seal_in_memory(data: Data) -> int:
    descriptor = os.memfd_create("object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write_all(descriptor, data)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_out(data: Data) -> int:
    with open_empty() as (writable, readable):
        _write_all(writable, data)
        return os.dup(readable)


def _write_all(descriptor: int, data: Data) -> None:
    for piece in iterate_pieces(data):
        written = 0
        while written < len(piece):
            written += os.write(descriptor, piece[written:])
