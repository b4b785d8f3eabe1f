"""Ogg (RFC 3533) page by page: where chained files begin, which pages are damaged, and when each stretch between ends.

A damaged file is cut into stretches of good pages. Each is decoded by itself behind the header pages, and ends at the time
of its last page: so sound behind a lost page stays where it was, whatever the decoder makes of the loss.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED, Account

_HEADER_BYTES = 27
_BEGINS, _ENDS = 2, 4
_FEW_PAGES = 10
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OPUS_HZ = 48_000
_WRONG_BYTES = 2**26  # of pages with a wrong checksum: beyond, the rest is taken for damage


@dataclass
class _Run:
    """Good pages that follow one another."""

    start: int
    end: int
    granule: int = 0


@dataclass
class _Link:
    """One of the files of a chain."""

    start: int
    first: bytes  # the first packet, which names the codec
    runs: list[_Run]
    headers_end: int = 0  # behind the pages before the first one with a time
    sequences: dict[int, int] = field(default_factory=dict)  # of each logical stream the number of its last page
    ended: set[int] = field(default_factory=set)
    largest: int = 0  # bytes of a page
    starts_late: bool = False
    has_sound: bool = False

    @property
    def end(self) -> int:
        return self.runs[-1].end


def split_ogg(data: bytes) -> list[Part]:
    """The files of a chain, in order; empty where there is no good page. Bytes of no good page count as damage.

    Raises nothing, whatever the bytes are.
    """
    links: list[_Link] = []
    at, wrong_bytes = 0, 0
    while at < len(data) and wrong_bytes <= _WRONG_BYTES:
        end, checked = _find_page_end(data, at)
        if not end:
            wrong_bytes += checked
            at = data.find(b"OggS", at + 1)
            if at < 0:
                break
            continue
        _add_page(links, data, at, end)
        at = end
    parts: list[Part] = []
    for number, link in enumerate(links):
        parts += _make_parts(data, link, links[number + 1].start if number + 1 < len(links) else len(data), number)
    return parts


def _find_page_end(data: bytes, at: int) -> tuple[int, int]:
    """Where the page at ``at`` ends, 0 where there is none or its checksum is wrong; and how many bytes were looked at."""
    if data[at : at + 4] != b"OggS" or len(data) < at + _HEADER_BYTES:
        return 0, 1
    body = at + _HEADER_BYTES + data[at + 26]
    end = body + sum(data[at + _HEADER_BYTES : body])
    if end > len(data):
        return 0, 1
    is_good = _compute_crc(data[at : at + 22] + bytes(4) + data[at + 26 : end]) == data[at + 22 : at + 26]
    return end if is_good else 0, end - at


def _compute_crc(page: bytes) -> bytes:
    """Ogg's CRC-32 has zlib's polynomial with the bits the other way round, starts at 0 and is not inverted."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return mirrored.to_bytes(4, "little").translate(_REVERSED)[::-1]


def _add_page(links: list[_Link], data: bytes, at: int, end: int) -> None:
    kind, granule, serial, sequence = struct.unpack("<BqII", data[at + 5 : at + 22])
    begins = bool(kind & _BEGINS)
    if not links or (begins and links[-1].has_sound):
        links.append(_Link(at, data[at + _HEADER_BYTES + data[at + 26] : end], [_Run(at, at)]))
    link = links[-1]
    last = link.sequences.get(serial)
    if at != link.end or (last is not None and sequence != last + 1):
        link.runs.append(_Run(at, at))
        # The headers of Vorbis, Opus, Speex and FLAC fill the first pages; their clock stands at 0. A recording of a live
        # stream has them, too, and then the pages of the moment at which it began.
        link.starts_late |= not link.has_sound and last is not None and sequence - last <= _FEW_PAGES
    link.sequences[serial] = sequence
    run = link.runs[-1]
    run.end, link.largest = end, max(link.largest, end - at)
    if granule > 0:
        run.granule, link.has_sound = granule, True
    elif not link.has_sound:
        link.headers_end = end
    if kind & _ENDS:
        link.ended.add(serial)


def _make_parts(data: bytes, link: _Link, end: int, number: int) -> list[Part]:
    unread = end - link.end
    account = CLOSED if link.ended >= link.sequences.keys() or unread else CLOSED.also("header_open")
    whole = Part(data[link.start : link.end], account, seconds=_read_time(link, link.runs[-1].granule), link=number)
    if len(link.runs) == 1 and not unread:
        return [whole]
    is_cut = 0 < unread <= 2 * link.largest and end == len(data) and _ends_inside_page(data, link.end)
    runs = [run for run in link.runs if run.granule]
    if len(link.sequences) > 1 or _read_rate(link) is None or not runs:
        # Several streams side by side: FFmpeg tells them apart, and goes by its own idea of time.
        return [Part(whole.data, CLOSED, is_whole=False, unread=unread, is_cut=is_cut, link=number)]
    headers = data[link.start : link.headers_end]
    parts = []
    for run in runs:
        is_last = run is runs[-1]
        parts.append(
            Part(
                headers + _without_end(data, max(run.start, link.headers_end), run.end),
                Account(),
                is_whole=False,
                unread=unread if is_last else 0,
                is_cut=is_cut and is_last,
                starts_late=link.starts_late and run is runs[0],
                ends_at_s=_read_time(link, run.granule),
                link=number,
            )
        )
    return parts


def _without_end(data: bytes, start: int, end: int) -> bytes:
    """The pages without the flag of the last one: FFmpeg takes no time from a page that has it."""
    pages, at = [], start
    while at < end:
        page_end = at + _HEADER_BYTES + data[at + 26]
        page_end += sum(data[at + _HEADER_BYTES : page_end])
        page = bytearray(data[at:page_end])
        if page[5] & _ENDS:
            page[5] &= ~_ENDS
            page[22:26] = bytes(4)
            page[22:26] = _compute_crc(bytes(page))
        pages.append(bytes(page))
        at = page_end
    return b"".join(pages)


def _ends_inside_page(data: bytes, at: int) -> bool:
    if data[at : at + 4] != b"OggS"[: len(data) - at]:
        return False
    body = at + _HEADER_BYTES + (data[at + 26] if len(data) > at + 26 else 0)
    return len(data) < body + sum(data[at + _HEADER_BYTES : body])


def _read_time(link: _Link, granule: int) -> float | None:
    """The time of a page in a file that begins at 0, in seconds; None for codecs that are not known here."""
    rate_hz = _read_rate(link)
    if rate_hz is None:
        return None
    before = int.from_bytes(link.first[10:12], "little") if link.first[:8] == b"OpusHead" else 0
    return max(granule - before, 0) / rate_hz


def _read_rate(link: _Link) -> int | None:
    """The units of the clock in a second."""
    head = link.first
    if head[:8] == b"OpusHead" and len(head) >= 12:
        return _OPUS_HZ
    if head[:7] == b"\x01vorbis" and len(head) >= 16:
        return int.from_bytes(head[12:16], "little") or None
    if head[:5] == b"\x7fFLAC" and len(head) >= 39:
        return int.from_bytes(head[27:30], "big") >> 4 or None
    if head[:8] == b"Speex   " and len(head) >= 40:
        return int.from_bytes(head[36:40], "little") or None
    return None
