"""One file inside an archive object, and how much an archive object may hold."""

from __future__ import annotations

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import IO

from dictalake.config.sections import Limits
from dictalake.errors import ExpandsTooLarge, ObjectTooLarge, TooManyMembers

# What the standard library raises for a damaged archive.
DAMAGE = (
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
    """One file inside an archive object.

    ``name`` is its path in the archive. ``refusal`` says why it cannot be read, None where it can. ``read`` may raise any of
    DAMAGE.
    """

    name: str
    size_bytes: int
    modified_at: datetime | None
    read: Callable[[], bytes]
    refusal: str | None = None


def check_size(size_bytes: int, recording_id: str, limits: Limits) -> None:
    """Raises ObjectTooLarge where a recording has more bytes than ``limits.object_mb`` allows."""
    if size_bytes > limits.object_mb * 1e6:
        raise ObjectTooLarge(
            recording_id,
            f"the recording has {size_bytes / 1e6:.1f} MB and limits.object_mb allows {limits.object_mb:g}; split it or raise "
            "the limit",
        )


@dataclass
class Bounds:
    """What one archive object was found to hold so far, and the limits it must keep."""

    recording_id: str
    limits: Limits
    members: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Counts one member."""
        self.members, self.size_bytes = self.members + 1, self.size_bytes + size_bytes
        self.check(self.members, self.size_bytes)

    def check(self, members: int, size_bytes: int) -> None:
        """Raises TooManyMembers or ExpandsTooLarge."""
        if members > self.limits.members:
            raise TooManyMembers(
                self.recording_id,
                f"the archive holds more than the {self.limits.members} files of limits.members; split it or raise the limit",
            )
        if size_bytes > self.limits.expanded_mb * 1e6:
            raise ExpandsTooLarge(
                self.recording_id,
                f"the archive unpacks to more than the {self.limits.expanded_mb:g} MB of limits.expanded_mb; split it or raise "
                "the limit if you trust it",
            )


def read_part(file: IO[bytes], at: int, size: int) -> bytes:
    """``size`` bytes from ``at`` on, fewer where the file ends earlier."""
    file.seek(at)
    return file.read(size)
