"""One file inside an archive object, how much an archive object may hold, and the list of its files as bytes.

A sandboxed child makes the list (``unpacker.py``), and its caller believes nothing in it: ``read_list`` checks every number and
name, and what a child may say about damage is a choice among sentences that stand here.
"""

from __future__ import annotations

import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

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
LONGEST_NAME = 4096  # characters
ENCRYPTED = "this file is encrypted inside its ZIP archive; unpack it with its password"
OTHER_METHOD = "this file is packed in its ZIP archive by a method other than deflate; pack it again"
WRONG_COUNT = "its directory announces {} files and names {}"
JOINED = "there are files before the first one that its directory names, as where two were joined"
LONG_NAME = f"it names a file with more than {LONGEST_NAME} characters"
BROKEN_TAR = "it is cut short, damaged in the middle, or has headers that no recording needs"
BROKEN_GZIP = "its gzip compression is damaged or cut short"
_REFUSALS = (None, ENCRYPTED, OTHER_METHOD)
_DAMAGES = (WRONG_COUNT, JOINED, LONG_NAME, BROKEN_TAR, BROKEN_GZIP)
_PLACES = 6  # numbers that say where a file lies
_LARGEST = 2**63 - 1
_ENTRY = np.dtype(
    [("size", "<i8"), ("time", "<f8"), ("refusal", "<u4"), ("name", "<u4"), ("place", "<i8", (_PLACES,))],
)


class Damage(NamedTuple):
    """Why some of an archive may be missing: a sentence from above, and the numbers in it."""

    sentence: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Member:
    """One file inside an archive object.

    ``name`` is its path in the archive. ``refusal`` says why it cannot be read, None where it can. ``place`` is where it lies,
    in numbers that the module of its kind of archive understands.
    """

    name: str
    size_bytes: int
    modified_at: datetime | None
    place: tuple[int, ...]
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


class ListError(Exception):
    """A list of members that no honest child makes."""


def write_list(members: Sequence[Member], damage: Damage | None) -> tuple[dict[str, list[int] | int | None], bytes]:
    """What a child answers: a number of files and which damage, and the files themselves as bytes."""
    entries = np.zeros(len(members), _ENTRY)
    names = [member.name.encode() for member in members]
    for entry, member, name in zip(entries, members, names, strict=True):
        entry["size"], entry["name"] = member.size_bytes, len(name)
        entry["time"] = math.nan if member.modified_at is None else member.modified_at.timestamp()
        entry["refusal"] = _REFUSALS.index(member.refusal)
        entry["place"][: len(member.place)] = [place if 0 <= place <= _LARGEST else _LARGEST for place in member.place]
    coded = None if damage is None else [_DAMAGES.index(damage.sentence), *damage.numbers]
    return {"members": len(members), "damage": coded}, entries.tobytes() + b"".join(names)


def read_list(answer: dict[str, object], data: memoryview, bounds: Bounds) -> tuple[list[Member], str | None]:
    """The members and the damage that a child answered. Raises ListError, TooManyMembers or ExpandsTooLarge."""
    count, damage = answer.get("members"), answer.get("damage")
    if type(count) is not int or count < 0:
        raise ListError("no number of files")
    length = count * _ENTRY.itemsize
    if len(data) < length:
        raise ListError("fewer files than it says")
    entries = np.frombuffer(data[:length], _ENTRY)
    names, at = data[length:], 0
    if int(entries["name"].sum(dtype=np.int64)) != len(names):
        raise ListError("names of other lengths than it says")
    members = []
    for entry in entries:
        members.append(_read_entry(entry, names[at : at + int(entry["name"])]))
        at += int(entry["name"])
        bounds.add(members[-1].size_bytes)
    return members, None if damage is None else _read_damage(damage)


def _read_entry(entry: np.void, name: memoryview) -> Member:
    size, time, refusal = int(entry["size"]), float(entry["time"]), int(entry["refusal"])
    place = tuple(int(number) for number in entry["place"])
    if size < 0 or min(place) < 0 or refusal >= len(_REFUSALS):
        raise ListError("a size, a place or a refusal that there is not")
    try:
        modified_at = None if math.isnan(time) else datetime.fromtimestamp(time, UTC)
        text = str(name, "utf-8")
    except (ValueError, OverflowError, OSError):
        raise ListError("a time or a name that there is not") from None
    if len(text) > LONGEST_NAME:
        raise ListError("a name without an end")
    return Member(text, size, modified_at, place, _REFUSALS[refusal])


def _read_damage(coded: object) -> str:
    if not isinstance(coded, list) or not 1 <= len(coded) <= 3 or any(type(number) is not int for number in coded):
        raise ListError("a damage that there is not")
    which, *numbers = coded
    if not 0 <= which < len(_DAMAGES) or _DAMAGES[which].count("{}") != len(numbers):
        raise ListError("a damage that there is not")
    return _DAMAGES[which].format(*(min(max(number, 0), _LARGEST) for number in numbers))
