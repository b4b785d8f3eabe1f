"""Tags that stand before, behind and between frames."""

from __future__ import annotations

import struct


def make_id3(size: int) -> bytes:
    sized = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    text = b"TIT2" + struct.pack(">I", 11) + b"\0\0\0Dictation1"
    return b"ID3\x03\0\0" + sized + text + bytes(size - len(text))


def make_ape(size: int) -> bytes:
    """An APEv2 tag with one item of ``size`` bytes."""
    item = struct.pack("<II", size, 0) + b"Title\0" + b"x" * size
    field = b"APETAGEX" + struct.pack("<III", 2000, len(item) + 32, 1)
    return field + struct.pack("<I", 0xA0000000) + bytes(8) + item + field + struct.pack("<I", 0x80000000) + bytes(8)
