"""A file of any storage as a stream whose reads survive transient errors."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dictalake.archive import storage
from dictalake.errors import RunError

_STREAM_BYTES = 2**22  # asked for at a time
Result = TypeVar("Result")


def open_stream(location: str, options: Mapping[str, Any], key: str, tries: int, given: str | None = None) -> io.BufferedReader:
    """Opens ``location`` for reading in blocks and for seeking; after a transient error it resumes at the same position.

    Raises the ConfigError or RunError of ``explain`` for ``key`` and the value ``given`` for it, now or while reading.
    """
    return io.BufferedReader(_ResumedFile(location, options, key, tries, given), _STREAM_BYTES)


class _ResumedFile(io.RawIOBase):
    def __init__(self, location: str, options: Mapping[str, Any], key: str, tries: int, given: str | None) -> None:
        self._given = given
        self._where, self._tries = (location, options, key), tries
        self._file: Any = None
        self._position = 0
        self._state: storage.ObjectState | None = None
        self._call(self._open)

    def _call(self, call: Callable[[], Result]) -> Result:
        try:
            return storage.call_with_retries(call, self._tries)
        except storage.storage_errors() as error:
            raise storage.explain(error, self._where[2], self._given) from None

    def _open(self) -> None:
        filesystem, path = storage.open_location(*self._where)
        state = storage.describe(filesystem, path)
        if self._state is not None and state != self._state:
            raise RunError(f"{self._where[2]}: the file changed while it was read; run again")
        self._state, self._file = state, filesystem.open(path, "rb", block_size=_STREAM_BYTES)

    def _read(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._open()
            self._file.seek(self._position)
            return bytes(self._file.read(count))
        except storage.storage_errors():
            self._file = None
            raise

    def readinto(self, buffer: Any) -> int:
        data = self._call(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        size = self._state.size_bytes if self._state is not None else 0
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
