"""Tags that editors put before, between and behind frames of MP3 and AAC: bytes that are no sound."""

from __future__ import annotations

import re
import struct

# ID3v2.2-4, ID3v1 and its extension, APEv2's header, Lyrics3
_TAG = re.compile(rb"ID3[\x02-\x04][\x00-\x04][\x00-\xf0][\x00-\x7f]{4}|TAG(?<!APETAG)\+?|LYRICSBEGIN", re.DOTALL)
_LYRICS_END = re.compile(rb"LYRICS(?:200|END)")
_LYRICS_BYTES = 100_000
_MOST_TAGS = 100_000  # those behind them count as sound that is missing
_APE = re.compile(rb"APETAGEX(?:\xe8\x03|\xd0\x07)\0\0")  # versions 1000 and 2000
_APE_BYTES = 32  # of its header, and of its footer


def id3_length(data: bytes, at: int = 0) -> int:
    """The length in bytes of the ID3v2 tag at ``at``, its header and footer included; 0 where there is none."""
    head = data[at : at + 10]
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 0x7F or head[3] not in (2, 3, 4):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def count_tag_bytes(data: bytes, start: int, end: int) -> int:
    """How many of the bytes ``data[start:end]`` belong to tags. A tag may reach beyond ``end``."""
    ape = _find_ape_tags(data, start, end)
    others = _find_other_tags(data, start, end, ape)
    at, tagged = start, 0
    for first, last in sorted([*ape, *others]):
        first, last = max(first, at), min(last, end)
        tagged += max(last - first, 0)
        at = max(at, last)
    return tagged


def _find_ape_tags(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """From the start to the end of each. A tag of version 1 has no header, just a footer behind its items."""
    found: list[tuple[int, int]] = []
    at = start
    while len(found) < _MOST_TAGS and (match := _APE.search(data, at, end)) is not None:
        first = match.start()
        head = data[first : first + _APE_BYTES]
        at = last = first + len(head)
        if len(head) == _APE_BYTES:
            size, _, flags = struct.unpack("<III", head[12:24])  # of the items and the footer
            if flags & 1 << 29:
                at = last = last + size
            else:
                first = max(min(first, last - size), found[-1][1] if found else start)
        found.append((first, last))
    return found


def _find_other_tags(data: bytes, start: int, end: int, ape: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    at, lyrics_from, number = start, start, 0
    while len(found) < _MOST_TAGS and (match := _TAG.search(data, at, end)) is not None:
        first, kind = match.start(), match.group()[:3]
        while number < len(ape) and ape[number][1] <= first:
            number += 1
        if number < len(ape) and ape[number][0] <= first:
            at = ape[number][1]  # letters inside of it
            continue
        if kind == b"ID3":
            length = id3_length(data, first)
        elif kind == b"LYR":
            closed = _LYRICS_END.search(data, max(first, lyrics_from), first + _LYRICS_BYTES)
            if closed is None:
                lyrics_from = max(lyrics_from, first + _LYRICS_BYTES - 9)
            length = closed.end() - first if closed is not None else len(match.group())
        else:
            # ID3v1 is 128 bytes at the very end; in a joined file at the end of a part. Audio may hold the letters by chance.
            length = 227 if match.group() == b"TAG+" else 128
        if length > 0:
            found.append((first, first + length))
        at = max(first + length, match.end())
    return found
