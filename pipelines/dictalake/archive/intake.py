"""The bytes of one object while they come: no more than are allowed, and a large object not in memory."""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from contextlib import suppress
from typing import IO

from dictalake.archive.deadlines import Call
from dictalake.archive.descriptors import MOST_IN_MEMORY, map_file
from dictalake.config.sections import Limits
from dictalake.errors import CorruptAudio, FetchFailed, ObjectTooLarge
from dictalake.records import Data

PIECE = 2**20
_GZIP = b"\x1f\x8b"


class Intake:
    """Takes pieces in order. ``write`` raises ObjectTooLarge beyond ``limits.object_mb``, FetchFailed where the disk is full,
    and whatever ``call.hear`` raises."""

    def __init__(self, recording_id: str, limits: Limits, call: Call) -> None:
        self._recording_id, self._limits, self._call = recording_id, limits, call
        self._most = int(limits.object_mb * 1e6)
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    @property
    def room(self) -> int:
        """How many bytes to ask for at most: one more than are allowed tells that there are more."""
        return self._most + 1 - self.size

    def write(self, piece: bytes) -> int:
        self._call.hear(len(piece))
        self.size += len(piece)
        if self.size > self._most:
            self.clear()
            raise ObjectTooLarge(
                self._recording_id,
                f"the recording has more bytes than the {self._limits.object_mb:g} MB that limits.object_mb allows, and was "
                "not read further; split it or raise the limit",
            )
        if self._file is None:
            self._pieces.append(piece)
        if self.size > MOST_IN_MEMORY:
            self._spill(piece)
        return len(piece)

    def _spill(self, piece: bytes) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                self._file.writelines(self._pieces)
                self._pieces = []
            else:
                self._file.write(piece)
        except OSError as error:
            raise self._no_room(error) from None

    def _no_room(self, error: OSError) -> FetchFailed:
        self.clear()
        return FetchFailed(
            self._recording_id,
            f"the worker's temporary folder cannot hold the object ({type(error).__name__} {error.errno}); free space there, "
            "or set TMPDIR to a larger disk",
        )

    def seek(self, offset: int) -> None:
        """Begins anew: google-cloud-storage asks for it. Only to 0."""
        if offset:
            raise io.UnsupportedOperation
        self.clear()

    def clear(self) -> None:
        """Lets go of what came."""
        self._pieces, self.size = [], 0
        if self._file is not None:
            with suppress(OSError):  # a full disk says so again
                self._file.close()
            self._file = None

    def finish(self) -> Data:
        """All bytes: as they are where there are few, else mapped from a file that is gone when nobody holds them any more."""
        if self._file is None:
            return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        try:
            with self._file as file:
                file.flush()
                return map_file(file.fileno(), self.size)
        except OSError as error:
            raise self._no_room(error) from None

    def inflate(self, stored: Data) -> Data:
        """What is in ``stored``, an object that its storage says to be compressed with gzip. One that is not is what it is."""
        if stored[: len(_GZIP)] != _GZIP:
            return stored
        self.clear()
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(stored) if isinstance(stored, bytes) else stored) as source:
                while piece := source.read1(PIECE):
                    self.write(piece)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.clear()
            raise CorruptAudio(
                self._recording_id,
                "the object is stored with Content-Encoding: gzip, and this compression is damaged or cut short; upload it "
                "again",
            ) from None
        return self.finish()
