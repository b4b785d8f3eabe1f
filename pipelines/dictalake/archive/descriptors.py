"""Bytes as open descriptors, for handing them to a sandboxed child. All are nameless: they go with their last holder."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator

from dictalake.archive.intake import MOST_IN_MEMORY
from dictalake.records import Data

_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # against further seals, shrinking, growing, writing
_ADD_SEALS = 1033


@contextlib.contextmanager
def open_bytes(data: Data) -> Iterator[int]:
    """A descriptor of ``data`` and of nothing else. Whoever holds it can only read."""
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


def map_file(descriptor: int, length: int) -> mmap.mmap:
    """The first ``length`` bytes as bytes. Nobody may be left who can make the file shorter."""
    return mmap.mmap(descriptor, length, access=mmap.ACCESS_READ)


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
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.write(descriptor, view[written : written + 2**24])
