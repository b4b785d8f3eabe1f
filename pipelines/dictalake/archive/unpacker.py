"""What a sandboxed child does with an archive object: it lists the files inside, or unpacks one of them.

The caller hands over descriptors. The first is of the object's own bytes and can only be read. A second one is of an empty
temporary file, where there is much to write. No call needs anything of a call before it, so any child can answer any call.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from zoneinfo import ZoneInfo

import numpy as np

from dictalake.archive.gzip_files import list_gzip, no_room
from dictalake.archive.members import DAMAGE, Bounds, Damage, Member, write_list
from dictalake.archive.tar_files import list_tar, read_range
from dictalake.archive.zip_files import list_zip, read_zip
from dictalake.config.sections import Limits
from dictalake.errors import CorruptAudio, LoadError
from dictalake.sandbox.child import received_files

Answer = tuple[dict[str, Any], np.ndarray]


def unpack(data: bytes, recording_id: str, settings: dict[str, Any]) -> Answer:
    """``settings`` say what to do. Raises the LoadErrors of ``archive/unpack.py``."""
    source, *targets = received_files()
    file = cast(BinaryIO, _Descriptor(source))
    into = cast(BinaryIO, _Descriptor(targets[0])) if targets else None
    if settings["do"] == "list":
        return _list(file, into, recording_id, settings)
    return _read(file, into, recording_id, settings)


def _list(file: BinaryIO, into: BinaryIO | None, recording_id: str, settings: dict[str, Any]) -> Answer:
    kind, size = settings["kind"], None
    bounds = Bounds(recording_id, Limits.model_validate(settings["limits"]))
    members: list[Member]
    damage: Damage | None
    try:
        if kind == "zip":
            members, damage = list_zip(file, bounds, ZoneInfo(settings["time_zone"]))
        elif kind == "tar":
            members, damage = list_tar(file, bounds)
        else:
            assert into is not None
            members, damage, size = list_gzip(file, into, settings["name"], bounds)
    except LoadError:
        raise
    except DAMAGE as error:
        raise CorruptAudio(
            recording_id,
            f"this {kind} archive cannot be opened ({type(error).__name__}); it may be cut short: upload it again",
        ) from None
    told, packed = write_list(members, damage)
    return {**told, "length": len(packed), "size": size}, as_samples(packed)


def _read(file: BinaryIO, into: BinaryIO | None, recording_id: str, settings: dict[str, Any]) -> Answer:
    """One file: into the second descriptor if there is one, else as the answer."""
    pieces = _read_pieces(file, recording_id, settings)
    if into is None:
        data = b"".join(pieces)
        return {"length": len(data)}, as_samples(data)
    length = 0
    for piece in pieces:
        try:
            length += into.write(piece)
        except OSError as error:
            raise no_room(recording_id, error) from None
    return {"length": length}, as_samples(b"")


def _read_pieces(file: BinaryIO, recording_id: str, settings: dict[str, Any]) -> Iterator[bytes]:
    read = read_zip if settings["kind"] == "zip" else read_range
    try:
        yield from read(file, settings["size"], settings["place"])
    except DAMAGE as error:
        raise CorruptAudio(
            recording_id,
            f"this file is damaged inside its archive ({type(error).__name__}); pack or upload the archive again",
        ) from None


def as_samples(data: bytes) -> np.ndarray:
    """Bytes as the sandbox carries them: one channel, filled up to a whole number of samples."""
    return np.frombuffer(data + b"\0" * (len(data) % 2), dtype=np.int16)[np.newaxis]


class _Descriptor(io.RawIOBase):
    """A file that has a place of its own: a descriptor that was handed over shares its place with the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """All that was asked for, fewer bytes only at the end."""
        left = max(0, os.fstat(self._descriptor).st_size - self._at)  # no memory for more than there is, whatever is asked for
        data = os.pread(self._descriptor, left if size < 0 else min(size, left), self._at)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any, /) -> int:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._descriptor, left, self._at)
            left, self._at = left[written:], self._at + written
        return len(data)

    def seek(self, at: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: 0}[whence]
        if whence == io.SEEK_END:
            base = os.fstat(self._descriptor).st_size
        if base + at < 0:
            raise ValueError("before the beginning")
        self._at = base + at
        return self._at

    def tell(self) -> int:
        return self._at
