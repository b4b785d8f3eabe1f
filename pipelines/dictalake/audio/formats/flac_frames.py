"""FLAC files (RFC 9639): where files that follow one another begin, and up to which sample the frames go."""

from __future__ import annotations

import re

from dictalake.audio.formats.announced import read_flac_info
from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED

_FILE = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL)
_FEW_TRIES = 1000  # sync codes of the last frames' own data that are looked at, from the end


def split_flac(data: bytes) -> list[Part]:
    """The files in ``data``, in order. A part is whole where its last frame ends at the sample that its header announces.

    Whether the frames before are, libsndfile says: it gives up at the first with a wrong checksum.
    """
    starts = [match.start() for match in _FILE.finditer(data)] or [0]
    parts = []
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        file = data[start:end] if end - start < len(data) else data
        info = read_flac_info(file)
        if info is None or info.rate_hz == 0:
            parts.append(Part(file, is_whole=False))
            continue
        whole = info.samples > 0 and _find_last_sample(file) == info.samples
        seconds = info.samples / info.rate_hz if info.samples else None
        parts.append(Part(file, CLOSED, seconds, is_whole=whole))
    return parts


def _find_last_sample(data: bytes) -> int | None:
    """Where the last frame whose header is sound ends, in samples."""
    least = int.from_bytes(data[8:10], "big")
    at = len(data)
    for _ in range(_FEW_TRIES):
        at = data.rfind(b"\xff", 0, at)
        if at < 0:
            return None
        if data[at + 1 : at + 2] in (b"\xf8", b"\xf9") and (place := read_frame_place(data[at : at + 18], least)) is not None:
            return sum(place)
    return None


def read_frame_place(head: bytes, block_samples: int) -> tuple[int, int] | None:
    """The first sample and the length of the frame that ``head`` begins, None where its CRC-8 says that it is none."""
    if len(head) < 6 or head[3] & 1:
        return None
    number, length = _read_coded_number(head[4:])
    if length == 0:
        return None
    at = 4 + length
    size_code, rate_code = head[2] >> 4, head[2] & 15
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    rate_bytes = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    end = at + size_bytes + rate_bytes
    if end >= len(head) or size_code == 0 or rate_code == 15 or _compute_crc8(head[:end]) != head[end]:
        return None
    if size_bytes:
        size = int.from_bytes(head[at : at + size_bytes], "big") + 1
    elif size_code == 1:
        size = 192
    else:
        size = 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    is_variable = head[1] & 1
    return (number if is_variable else number * block_samples), size


def _read_coded_number(data: bytes) -> tuple[int, int]:
    """A number in the coding of UTF-8, up to 36 bits, and its length in bytes; (0, 0) where it is none."""
    first = data[0]
    if first < 0x80:
        return first, 1
    length = 8 - (first ^ 0xFF).bit_length()
    if not 2 <= length <= 7 or len(data) < length:
        return 0, 0
    number = first & (0x7F >> length)
    for byte in data[1:length]:
        if byte & 0xC0 != 0x80:
            return 0, 0
        number = number << 6 | byte & 0x3F
    return number, length


def _compute_crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
