"""Frame headers of coded audio that has no container: MPEG layers, ADTS, LATM/LOAS, AC-3, E-AC-3, and MPEG-TS packets.

A sync word alone stands in every hundredth random file. Headers count only where they follow one another at the distance
that each announces, and agree in what never changes inside a stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

# Inside other bytes: random ones do not make a chain of four, but the patterns of a picture may, so one as long as that has
# to reach the end.
FRAMES_WANTED = 4
_FRAMES_SURE = 12


class Frame(NamedTuple):
    """``length`` in bytes with the header; ``fixed`` is what all frames of a stream have in common."""

    name: str
    length: int
    fixed: tuple[int, ...]


def read_mpeg_header(data: bytes, at: int) -> Frame | None:
    header = data[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3 or header[3] & 3 == 2:
        return None
    bits_per_s = _BITRATES_KBPS[version == 3, layer][bitrate - 1] * 1000
    rate_hz = _RATES_HZ[version][rate]
    if layer == 1:
        length = (12 * bits_per_s // rate_hz + padding) * 4
    else:
        length = (72 if layer == 3 and version != 3 else 144) * bits_per_s // rate_hz + padding
    return Frame("mp3", length, (version, layer, rate))


_BITRATES_KBPS = {  # ISO/IEC 11172-3 section 2.4.2.3 and 13818-3: (is version 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # versions 1, 2, 2.5


def read_adts_header(data: bytes, at: int) -> Frame | None:
    """ISO/IEC 14496-3 annex 1.A.3."""
    header = data[at : at + 7]
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return Frame("aac", length, (header[1], header[2])) if length > 7 else None


def read_loas_header(data: bytes, at: int) -> Frame | None:
    """AudioSyncStream of ISO/IEC 14496-3 section 1.7.2: eleven bits of sync, thirteen of length."""
    header = data[at : at + 3]
    if len(header) < 3 or header[0] != 0x56 or header[1] & 0xE0 != 0xE0:
        return None
    length = (header[1] & 0x1F) << 8 | header[2]
    return Frame("latm", length + 3, ()) if length else None


def read_ac3_header(data: bytes, at: int) -> Frame | None:
    """ETSI TS 102 366: AC-3 up to bsid 10, E-AC-3 from 11 to 16."""
    header = data[at : at + 6]
    if len(header) < 6 or header[:2] != b"\x0b\x77":
        return None
    rate, version = header[4] >> 6, header[5] >> 3
    if 10 < version <= 16:
        length = ((header[2] & 7) << 8 | header[3]) * 2 + 2
        return Frame("eac3", length, (version,)) if length > 6 and header[2] >> 6 != 3 else None
    size = header[4] & 63
    if version > 10 or rate == 3 or size >= 2 * len(_AC3_KBPS):
        return None
    kbps = _AC3_KBPS[size >> 1]
    length = (kbps * 4, (kbps * 96_000 // 44_100 + (size & 1)) * 2, kbps * 6)[rate]
    return Frame("ac3", length, (version, rate))


_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
Reader = Callable[[bytes, int], Frame | None]
_READERS: tuple[Reader, ...] = (
    read_mpeg_header,
    read_adts_header,
    read_loas_header,
    read_ac3_header,
)
_SYNC = re.compile(rb"(?=\xff[\xe0-\xff]|\x56[\xe0-\xff]|\x0b\x77)")


def sniff_frames(data: bytes) -> str | None:
    """The name of the stream that begins with the first byte: of MPEG and ADTS two frames are enough, or one that is all."""
    for read in _READERS:
        first = read(data, 0)
        if first is not None and first.length <= len(data):
            return first.name if _follow(data, 0, read, 2 if first.name in ("mp3", "aac") else 3) else None
    return "mpegts" if _is_transport_stream(data, 0, 4) else None


def find_frames(data: bytes, start: int, end: int) -> tuple[int, str] | None:
    """The first place from ``start`` up to ``end`` where a chain of frames begins that is no chance, and their name."""
    for match in _SYNC.finditer(data, start, end):
        for read in _READERS:
            first = read(data, match.start())
            if first is not None and _count_chain(data, match.start(), read) >= FRAMES_WANTED:
                return match.start(), first.name
    return None


def is_frame_chain(data: bytes, at: int, name: str) -> bool:
    """Whether three frames of ``name`` (mp3, aac) that agree follow one another from ``at`` on, or fewer and then the end."""
    return _follow(data, at, {"mp3": read_mpeg_header, "aac": read_adts_header}[name], 3)


def find_transport_stream(data: bytes, start: int, end: int) -> int | None:
    """The first place from ``start`` up to ``end`` where eight packets of MPEG-TS begin."""
    at = data.find(0x47, start, end)
    while at >= 0:
        if _is_transport_stream(data, at, 8):
            return at
        at = data.find(0x47, at + 1, end)
    return None


def _follow(data: bytes, at: int, read: Reader, wanted: int) -> bool:
    """Whether ``wanted`` frames that agree follow one another, or at least one and then the end of the data."""
    frames, end = _walk(data, at, read, wanted)
    return frames == wanted or (frames > 0 and end == len(data))


def _count_chain(data: bytes, at: int, read: Reader) -> int:
    """Frames that agree and follow one another; 0 for a short chain that ends before the data, or a tag at their end, does."""
    frames, end = _walk(data, at, read, _FRAMES_SURE)
    is_short = frames < _FRAMES_SURE and end < len(data) and data[end : end + 3] not in (b"TAG", b"APE", b"ID3")
    return 0 if is_short else frames


def _walk(data: bytes, at: int, read: Reader, most: int) -> tuple[int, int]:
    """How many frames, at most ``most``, agree and follow one another from ``at``, and where they end."""
    first = frame = read(data, at)
    frames = 0
    while frame is not None and first is not None and (frame.name, frame.fixed) == (first.name, first.fixed):
        frames, at = frames + 1, at + frame.length
        if frames == most or at >= len(data):
            break
        frame = read(data, at)
    return frames, at


def _is_transport_stream(data: bytes, at: int, wanted: int) -> bool:
    """Packets of 188 bytes, alone, behind a time stamp of four bytes (BDAV), or before sixteen of error correction."""
    for first, step in ((at, 188), (at + 4, 192), (at, 204)):
        places = range(first, first + step * wanted, step)
        if places[-1] < len(data) and all(data[place] == 0x47 and data[place + 3] & 0x30 for place in places[:-1]):
            return data[places[-1]] == 0x47
    return False
