"""Objects in which whole files follow one another without anything between them, of containers that say where they begin."""

from __future__ import annotations

import re
from collections.abc import Callable

from dictalake.audio.formats.parts import Part

_EBML = re.compile(rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82[\x84-\x88](?:webm|matroska)", re.DOTALL)
_ASF = re.compile(re.escape(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")))
_MOST_BOXES = 100_000  # at the top level; an object of more is left to FFmpeg as one file
_BOX_NAME = re.compile(rb"[A-Za-z0-9 ]{4}")


def split_at_signatures(data: bytes, container: str) -> list[Part]:
    """The files in ``data``, in order; ``data`` itself for containers whose files are not told apart here."""
    finder = _FINDERS.get(container)
    starts = finder(data) if finder is not None else []
    starts = [0, *(start for start in starts if start > 0)]
    if len(starts) == 1:
        return [Part(data)]
    return [Part(data[start:end]) for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _find_boxes(data: bytes) -> list[int]:
    """Where a second or later ``ftyp`` box begins at the top level (ISO/IEC 14496-12)."""
    at, found = 0, []
    for _ in range(_MOST_BOXES):
        if at + 8 > len(data):
            return found[1:]  # a box before the first one is lawful
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if not _BOX_NAME.fullmatch(name):
            return found[1:]
        if name == b"ftyp":
            found.append(at)
        if size == 1 and at + 16 <= len(data):
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return found[1:]  # 0: to the end of the file
        at += size
    return []


_FINDERS: dict[str, Callable[[bytes], list[int]]] = {
    "matroska": lambda data: [match.start() for match in _EBML.finditer(data)],
    "asf": lambda data: [match.start() for match in _ASF.finditer(data)],
    "mp4": _find_boxes,
}
