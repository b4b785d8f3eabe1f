"""AMR files (RFC 4867 section 5) frame by frame: FFmpeg takes any byte for a frame header, and damage for hours of silence.

Bytes that are no frames are replaced by as many frames without data. How many is told by the frames around them: in a pause
(discontinuous transmission) a frame has one byte or six, in speech up to sixty.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED

_MAGIC = re.compile(rb"#!AMR(?:-WB)?\n")
_FRAME_S = 0.02
_NO_DATA = b"\x7c"
_BLOCK_FRAMES = 512
_NEAR_FRAMES = 32  # on each side of damage tell how long a frame is there
_LONG_BYTES = 500  # of damage: then a whole block on each side tells
_MANY_DOUBTFUL = 8
_GOOD = 0x04  # this bit of a header is not set in a frame that was damaged on its way to the recorder


class _Kind:
    """The frames of AMR or AMR-WB: ``sizes`` are bytes with the header by type, 0 where there is no such type.

    ``silent`` is the type of SID, which describes the noise of a pause. Frames of one byte hold nothing.
    """

    def __init__(self, sizes: tuple[int, ...], silent: int) -> None:
        self.sizes, self.silent = sizes, silent
        self.empty = bytes(kind << 3 | _GOOD for kind, size in enumerate(sizes) if size == 1)
        sound = self._match(_GOOD)
        empty = b"[" + re.escape(self.empty) + b"]"
        self._empty = re.compile(empty + b"*+")
        self.run = re.compile(b"(?:%b{1,512}+|%b){1,%d}+" % (empty, sound, _BLOCK_FRAMES), re.DOTALL)
        # Four frames with few empty ones between them, or one and many; less only at the very end. One may say that it is bad.
        more = b"(?:%b{0,5}+%b?%b)" % (empty, self._match(0), sound)
        self.chain = re.compile(b"%b(?:%b{6}|%b{3}|%b{0,2}%b*+\\Z)" % (sound, empty, more, more, empty), re.DOTALL)

    def _match(self, quality: int) -> bytes:
        """A pattern for frames of more than one byte."""
        frames = [
            re.escape(bytes([kind << 3 | quality])) + b".{%d}" % (size - 1) for kind, size in enumerate(self.sizes) if size > 1
        ]
        return b"(?:" + b"|".join(frames) + b")"

    def skip_empty(self, data: bytes, at: int) -> int:
        match = self._empty.match(data, at)
        return at if match is None else match.end()

    def read_size(self, data: bytes, at: int) -> int:
        """The bytes of the frame at ``at``, of whatever quality; 0 where its header is none or ``data`` ends before it does."""
        size = 0 if at >= len(data) or data[at] & 0x83 else self.sizes[data[at] >> 3]
        return size if at + size <= len(data) else 0


_NARROW = _Kind((13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1), 8)
_WIDE = _Kind((18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1), 9)


class _Damage(NamedTuple):
    start: int
    end: int
    frames: int


def split_amr(data: bytes) -> list[Part]:
    """The AMR files in ``data``, in order, with frames alone in them."""
    starts = [match.start() for match in _MAGIC.finditer(data)]
    if not starts or starts[0] != 0:
        return [Part(data)]
    return [_clean(data[start:end]) for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _clean(data: bytes) -> Part:
    damage = _find_damage(data, _WIDE if data[5:6] == b"-" else _NARROW)
    if not damage:
        return Part(data)
    kept, at, account = [], 0, CLOSED
    for start, end, frames in damage:
        kept.append(data[at:start])
        is_cut = end == len(data) and end - start < max(_WIDE.sizes)
        if not is_cut:
            kept.append(_NO_DATA * frames)
        lost_s = frames * _FRAME_S
        account = account.also("cut_end" if is_cut else "damaged", lost_s=lost_s, broken_s=0.0 if is_cut else lost_s)
        at = end
    return Part(b"".join([*kept, data[at:]]), account)


def _find_damage(data: bytes, kind: _Kind) -> list[_Damage]:
    match = _MAGIC.match(data)
    at = match.end() if match else 0
    damage: list[_Damage] = []
    block = previous = at  # where the last block of frames that follow one another begins, and the one before it
    while at < len(data):
        if (run := kind.run.match(data, at)) is not None:
            previous, block, at = block, at, run.end()
        elif size := _read_doubtful(data, at, kind, previous):
            at += size
        else:
            end = _find_chain(data, at + 1, kind)
            damage.append(_Damage(at, end, _count_frames(data, previous, at, end, kind)))
            previous = block = at = end
    return damage


def _read_doubtful(data: bytes, at: int, kind: _Kind, before: int) -> int:
    """The size of the frame at ``at`` that says that it is bad, as FFmpeg conceals it; 0 where it is damage.

    It is a frame where good ones follow and a neighbour has its type, or where so many follow that the writer sets no such bit.
    """
    size = kind.read_size(data, at)
    if not size or not data[at : at + size].strip(b"\0"):
        return 0
    place, count = at, 0
    while count < _MANY_DOUBTFUL and kind.read_size(data, place) and data[place] == data[at]:
        place, count = place + size, count + 1
    if count == _MANY_DOUBTFUL:
        return size
    if place < len(data) and not kind.chain.match(data, kind.skip_empty(data, place)):
        return 0
    kinds = {data[start] >> 3 for start in [*_walk(data, before, at, kind)[-1:], place] if start < len(data)}
    return size if data[at] >> 3 >= kind.silent or data[at] >> 3 in kinds else 0


def _find_chain(data: bytes, at: int, kind: _Kind) -> int:
    """Where the next frames begin that follow one another; the end of ``data`` where none do."""
    found = kind.chain.search(data, at)
    if found is None:
        return len(data)
    start = found.start()
    while start > at and data[start - 1] in kind.empty:
        start -= 1
    return start


def _count_frames(data: bytes, before: int, start: int, end: int, kind: _Kind) -> int:
    """How many frames ``data[start:end]`` held, by the sizes of those around it."""
    most = _NEAR_FRAMES if end - start < _LONG_BYTES else _BLOCK_FRAMES
    near = _walk(data, before, start, kind)[-most:] + _walk(data, end, len(data), kind, most)
    sizes = [kind.read_size(data, place) for place in near]
    if not sizes or end - start in sizes:
        sizes = [end - start if sizes else max(kind.sizes)]
    return max(round((end - start) * len(sizes) / sum(sizes)), 1)


def _walk(data: bytes, at: int, end: int, kind: _Kind, most: int = sys.maxsize) -> list[int]:
    """Where the frames between ``at`` and ``end`` begin."""
    places: list[int] = []
    while at < end and len(places) < most and (size := kind.read_size(data, at)):
        places.append(at)
        at += size
    return places
