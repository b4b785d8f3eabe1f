"""Tags that editors put before, between and behind frames of MP3 and AAC: bytes that are no sound."""

from __future__ import annotations

import re
import struct

# ID3v2.2-4, ID3v1 and its extension, APEv1-2, Lyrics3
_TAG = re.compile(rb"ID3[\x02-\x04][\x00-\x04][\x00-\xf0][\x00-\x7f]{4}|TAG\+|TAG|APETAGEX|LYRICSBEGIN", re.DOTALL)
_APE_HEADER_BYTES = 32


def id3_length(data: bytes, at: int = 0) -> int:
    """The length in bytes of the ID3v2 tag at ``at``, its header and footer included; 0 where there is none."""
    head = data[at : at + 10]
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 0x7F or head[3] not in (2, 3, 4):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def count_tag_bytes(data: bytes, start: int, end: int) -> int:
    """How many of the bytes ``data[start:end]`` belong to tags. A tag may reach beyond ``end``."""
    at, tagged = start, 0
    while (match := _TAG.search(data, at, end)) is not None:
        length = min(_tag_length(data, match), end - match.start())
        if length <= 0:
            at = match.end()
            continue
        tagged += length
        at = match.start() + length
    return tagged


def _tag_length(data: bytes, match: re.Match[bytes]) -> int:
    at, kind = match.start(), match.group()[:4]
    if kind[:3] == b"ID3":
        return id3_length(data, at)
    if kind == b"APET":
        head = data[at : at + _APE_HEADER_BYTES]
        if len(head) < _APE_HEADER_BYTES:
            return len(head)
        size, _, flags = struct.unpack("<III", head[12:24])
        # The size counts the items and the footer. A header (bit 29) stands before them; a footer alone has them before it.
        return _APE_HEADER_BYTES + (size if flags & 1 << 29 else 0)
    if kind == b"LYRI":
        found = data.find(b"LYRICS200", at, at + 100_000)
        return found + 9 - at if found >= 0 else 11
    # ID3v1 is 128 bytes at the very end; in a joined file at the end of a part. Audio may contain the letters by chance.
    return {b"TAG+": 227}.get(kind, 128)
