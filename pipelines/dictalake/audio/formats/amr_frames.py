"""AMR files (RFC 4867 section 5) frame by frame: FFmpeg takes any byte for a frame header, and damage for hours of silence.

Bytes that are no frames, and frames that say of themselves that they are bad, are replaced by as many frames without data.
"""

from __future__ import annotations

import re

from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED

_MAGIC = re.compile(rb"#!AMR(?:-WB)?\n")
# Bytes of a frame with its header by type; 0: no such type
_NARROW = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)
_WIDE = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)
_FRAME_S = 0.02
_NO_DATA = b"\x7c"
_CHAIN = 4  # good frames in a row that end a stretch of damage


def split_amr(data: bytes) -> list[Part]:
    """The AMR files in ``data``, in order, with frames alone in them."""
    starts = [match.start() for match in _MAGIC.finditer(data)]
    if not starts or starts[0] != 0:
        return [Part(data)]
    return [_clean(data[start:end]) for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _clean(data: bytes) -> Part:
    match = _MAGIC.match(data)
    at = match.end() if match else 0
    sizes = _WIDE if data[5:6] == b"-" else _NARROW
    kept, speech_bytes, speech = [data[:at]], 0, 0
    damage: list[tuple[int, int]] = []  # place in ``kept``, bytes
    while at < len(data):
        size = _read_size(data, at, sizes)
        if size and at + size <= len(data):
            kept.append(data[at : at + size])
            if size > 6:
                speech_bytes, speech = speech_bytes + size, speech + 1
            at += size
            continue
        following = _find_chain(data, at + 1, sizes)
        damage.append((len(kept), following - at))
        kept.append(b"")
        at = following
    if not damage:
        return Part(data)
    mean_bytes = speech_bytes / speech if speech else max(sizes)
    account, is_cut = CLOSED, damage[-1] == (len(kept) - 1, damage[-1][1]) and damage[-1][1] < mean_bytes
    for number, (place, length) in enumerate(damage):
        frames = max(round(length / mean_bytes), 1)
        is_end = is_cut and number == len(damage) - 1
        if not is_end:
            kept[place] = _NO_DATA * frames
        lost_s = frames * _FRAME_S
        account = account.also("cut_end" if is_end else "damaged", lost_s=lost_s, broken_s=0.0 if is_end else lost_s)
    return Part(b"".join(kept), account, is_whole=speech > 0)


def _read_size(data: bytes, at: int, sizes: tuple[int, ...]) -> int:
    """The bytes of the frame at ``at``; 0 where its header is none: padding bits that are set, no such type, not of quality."""
    header = data[at]
    if header & 0x83 or not header & 0x04:
        return 0
    return sizes[header >> 3 & 15]


def _find_chain(data: bytes, at: int, sizes: tuple[int, ...]) -> int:
    """Where the next frames begin that follow one another; the end of ``data`` where none do."""
    for start in range(at, len(data)):
        place = start
        for _ in range(_CHAIN):
            size = _read_size(data, place, sizes) if place < len(data) else 0
            if size < 2 and place < len(data):
                break
            place += size
        else:
            return start
        if place == len(data) > start:
            return start
    return len(data)
