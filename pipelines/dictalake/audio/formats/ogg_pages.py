"""Ogg (RFC 3533) page by page: where chained files begin, which pages are damaged, and what the last one's clock says."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED

_HEADER_BYTES = 27
_BEGINS, _ENDS = 2, 4
_FEW_PAGES = 10
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OPUS_HZ = 48_000


@dataclass
class _Link:
    """One of the files of a chain."""

    start: int
    end: int = 0  # of its last good page
    sequences: dict[int, int] = field(default_factory=dict)  # of each logical stream the number of its last page
    ended: set[int] = field(default_factory=set)
    granule: int = 0
    largest: int = 0  # bytes of a page
    first: bytes = b""  # the first packet, which names the codec
    is_whole: bool = True
    starts_late: bool = False
    has_sound: bool = False


def split_ogg(data: bytes) -> list[Part]:
    """The files of a chain, in order; empty where there is no good page. Bytes of no good page count as damage.

    Raises nothing, whatever the bytes are.
    """
    links: list[_Link] = []
    at = 0
    while at < len(data):
        end = _find_page_end(data, at)
        if not end:
            if links:
                links[-1].is_whole = False
            following = data.find(b"OggS", at + 1)
            if following < 0:
                break
            at = following
            continue
        _add_page(links, data, at, end)
        at = end
    return [
        _make_part(data, link, links[number + 1].start if number + 1 < len(links) else len(data))
        for number, link in enumerate(links)
    ]


def _find_page_end(data: bytes, at: int) -> int:
    """Where the page at ``at`` ends; 0 where there is none, or its checksum is wrong."""
    if data[at : at + 4] != b"OggS" or len(data) < at + _HEADER_BYTES:
        return 0
    segments = data[at + 26]
    body = at + _HEADER_BYTES + segments
    end = body + sum(data[at + _HEADER_BYTES : body])
    if end > len(data) or _compute_crc(data[at : at + 22] + bytes(4) + data[at + 26 : end]) != data[at + 22 : at + 26]:
        return 0
    return end


def _compute_crc(page: bytes) -> bytes:
    """Ogg's CRC-32 has zlib's polynomial with the bits the other way round, starts at 0 and is not inverted."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return mirrored.to_bytes(4, "little").translate(_REVERSED)[::-1]


def _add_page(links: list[_Link], data: bytes, at: int, end: int) -> None:
    kind, granule, serial, sequence = struct.unpack("<BqII", data[at + 5 : at + 22])
    begins = bool(kind & _BEGINS)
    if not links or (begins and links[-1].has_sound):
        links.append(_Link(at, first=data[at + _HEADER_BYTES + data[at + 26] : end]))
    link = links[-1]
    last = link.sequences.get(serial)
    if last is not None and sequence != last + 1:
        link.is_whole = False
        # The headers of Vorbis, Opus, Speex and FLAC fill the first pages; their clock stands at 0.
        # A recording of a live stream has them, too, and then the pages of the moment at which it began.
        link.starts_late |= link.granule == 0 and sequence - last <= _FEW_PAGES
    link.sequences[serial] = sequence
    link.has_sound |= not begins
    if kind & _ENDS:
        link.ended.add(serial)
    if granule > 0:
        link.granule = granule
    link.end, link.largest = end, max(link.largest, end - at)


def _make_part(data: bytes, link: _Link, end: int) -> Part:
    unread = end - link.end
    closed = link.ended >= link.sequences.keys()
    return Part(
        data[link.start : link.end],
        CLOSED if closed or unread else CLOSED.also("header_open"),
        seconds=_read_seconds(link),
        is_whole=link.is_whole and not unread,
        unread=unread,
        is_cut=0 < unread <= 2 * link.largest and end == len(data) and _ends_inside_page(data, link.end),
        starts_late=link.starts_late,
    )


def _ends_inside_page(data: bytes, at: int) -> bool:
    if data[at : at + 4] != b"OggS"[: len(data) - at]:
        return False
    body = at + _HEADER_BYTES + (data[at + 26] if len(data) > at + 26 else 0)
    return len(data) < body + sum(data[at + _HEADER_BYTES : body])


def _read_seconds(link: _Link) -> float | None:
    """The length by the last page's clock, for a file that begins at 0; None for codecs that libsndfile does not read."""
    head = link.first
    if head[:8] == b"OpusHead" and len(head) >= 12:
        return max(link.granule - int.from_bytes(head[10:12], "little"), 0) / _OPUS_HZ
    if head[:7] == b"\x01vorbis" and len(head) >= 16:
        rate_hz = int.from_bytes(head[12:16], "little")
        return link.granule / rate_hz if rate_hz else None
    if head[:5] == b"\x7fFLAC" and len(head) >= 39:
        rate_hz = int.from_bytes(head[27:30], "big") >> 4
        return link.granule / rate_hz if rate_hz else None
    return None
