"""Objects in which whole files follow one another without anything between them, of containers that say where they begin."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import replace

from dictalake.audio.formats.parts import Part

_Finder = Callable[[bytes], tuple[list[int], int]]  # where files begin, and where the search was given up, or the end
_EBML = re.compile(rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82[\x84-\x88](?:webm|matroska)", re.DOTALL)
_ASF = re.compile(re.escape(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")))
_MOST_FILES, _MOST_BOXES = 10_000, 1_000_000  # at the top level; what follows more than these counts as damage
_BOX = struct.Struct(">I4s")
_BOX_NAME = re.compile(rb"[A-Za-z0-9 ]{4}")


def split_at_signatures(data: bytes, container: str) -> list[Part]:
    """The files in ``data``, in order; ``data`` itself for containers whose files are not told apart here."""
    finder = _FINDERS.get(container)
    starts, end = finder(data) if finder is not None else ([], len(data))
    starts = [0, *(start for start in starts if start > 0)]
    if len(starts) > _MOST_FILES:
        end = starts[_MOST_FILES]
    starts = starts[:_MOST_FILES]
    parts = [
        Part(data[first:last] if len(starts) > 1 or end < len(data) else data)
        for first, last in zip(starts, [*starts[1:], end], strict=True)
    ]
    if end < len(data):
        parts[-1] = replace(parts[-1], unread=len(data) - end)
    return parts


def _find_all(pattern: re.Pattern[bytes]) -> _Finder:
    return lambda data: ([match.start() for match in pattern.finditer(data)], len(data))


def _find_boxes(data: bytes) -> tuple[list[int], int]:
    """Where a second or later ``ftyp`` box begins at the top level (ISO/IEC 14496-12)."""
    at, found = 0, []
    for _ in range(_MOST_BOXES):
        if at + 8 > len(data):
            return found[1:], len(data)  # a box before the first one is lawful
        size, name = _BOX.unpack_from(data, at)
        if not _BOX_NAME.fullmatch(name):
            return found[1:], len(data)
        if name == b"ftyp":
            found.append(at)
        if size == 1 and at + 16 <= len(data):
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return found[1:], len(data)  # 0: to the end of the file
        at += size
    return found[1:], min(at, len(data))


_FINDERS: dict[str, _Finder] = {
    "matroska": _find_all(_EBML),
    "asf": _find_all(_ASF),
    "mp4": _find_boxes,
}
