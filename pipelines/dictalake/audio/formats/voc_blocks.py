"""Creative Voice files block by block: each announces its length, so an end that is missing can be told."""

from __future__ import annotations

import struct

from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED

_MAGIC = b"Creative Voice File\x1a"
_END, _OLD_SOUND, _MORE_SOUND, _SILENCE, _EXTRA, _SOUND = 0, 1, 2, 3, 8, 9
_LAST_KIND = 9
_MOST_BLOCKS = 100_000
_BITS = {0: 8.0, 1: 4.0, 2: 8 / 3, 3: 2.0, 4: 16.0, 6: 8.0, 7: 8.0, 0x200: 4.0}  # of a sample, by its coding


def split_voc(data: bytes) -> list[Part]:
    """``data`` as it is, with the account of its last block. FFmpeg stops at blocks that make no sense."""
    if not data.startswith(_MAGIC) or len(data) < 26:
        return [Part(data)]
    at = max(int.from_bytes(data[20:22], "little"), 22)
    per_s, extra_hz = 0.0, 0.0  # bytes and, by block 8, samples
    for _ in range(_MOST_BLOCKS):
        if at == len(data):
            return [Part(data, CLOSED.also("header_open"))]  # no end mark
        if at > len(data) or data[at] == _END or data[at] > _LAST_KIND:
            break
        if at + 4 > len(data):
            return [Part(data, CLOSED.also("cut_end"))]
        kind, size, body = data[at], int.from_bytes(data[at + 1 : at + 4], "little"), at + 4
        if kind == _EXTRA:
            extra_hz = _read_extra(data[body : body + 4])
        elif kind == _OLD_SOUND:
            per_s, extra_hz = _read_old_rate(data[body : body + 2], extra_hz), 0.0
        elif kind == _SOUND:
            per_s = _read_rate(data[body : body + 12])
        end = body + size
        if not size:
            break
        if end > len(data):
            is_sound = kind in (_OLD_SOUND, _MORE_SOUND, _SOUND) and per_s
            return [Part(data, CLOSED.also("cut_end", lost_s=(end - len(data)) / per_s if is_sound else 0.0))]
        at = end
    return [Part(data)]


def _read_extra(body: bytes) -> float:
    """Block 8 takes the place of the rate in the next block 1: samples a second of all channels."""
    if len(body) < 4:
        return 0.0
    divisor = int.from_bytes(body[:2], "little")
    return 256_000_000 / (65536 - divisor)


def _read_old_rate(body: bytes, extra_hz: float) -> float:
    """Bytes a second of block 1."""
    if len(body) < 2:
        return 0.0
    return (extra_hz or 1_000_000 / (256 - body[0])) * _BITS.get(body[1], 0.0) / 8


def _read_rate(body: bytes) -> float:
    """Bytes a second of block 9."""
    if len(body) < 8:
        return 0.0
    rate_hz, bits, channels, coding = struct.unpack("<IBBH", body[:8])
    return float(rate_hz * channels * _BITS.get(coding, bits) / 8)
