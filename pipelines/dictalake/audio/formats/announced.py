"""What containers announce about the length of their sound, where FFmpeg does not say whether it knows or guesses."""

from __future__ import annotations

import struct
from typing import NamedTuple

import av

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_SAMPLES_OF_FRAME = {(True, 1): 384, (True, 2): 1152, (True, 3): 1152, (False, 1): 384, (False, 2): 1152, (False, 3): 576}
_INDEXED = {"mp4", "wavpack", "tta", "ape", "avi"}  # their demuxers take the length from an index or a header, never from bytes


class FlacInfo(NamedTuple):
    """STREAMINFO (RFC 9639 section 8.2): ``samples`` is 0 where the encoder did not know it."""

    rate_hz: int
    samples: int
    end: int  # where the block ends


def read_flac_info(data: bytes) -> FlacInfo | None:
    if data[:4] != b"fLaC" or len(data) < 42 or data[4] & 0x7F != 0:
        return None
    packed = int.from_bytes(data[18:26], "big")
    return FlacInfo(packed >> 44, packed & (1 << 36) - 1, 42)


def find_end(
    data: bytes, container: str, file: av.container.InputContainer, stream: av.AudioStream
) -> tuple[float | None, bool]:
    """The clock's time in seconds at which the sound ends by its container, and whether more than that may follow.

    None where the container does not say; FFmpeg's guesses from the size of the file do not count.
    """
    if container == "flac":
        info = read_flac_info(data)
        return (info.samples / info.rate_hz if info and info.samples and info.rate_hz else None), True
    if container in _INDEXED and stream.duration and stream.time_base:
        return float((stream.duration + min(stream.start_time or 0, 0)) * stream.time_base), False
    if container == "matroska" and file.duration and _has_matroska_duration(data):
        return file.duration / av.time_base, True
    if container == "asf":
        return _read_asf_end(data), False
    return None, False


def _has_matroska_duration(data: bytes) -> bool:
    """Whether the head holds a Duration element (44 89) of a float; without one FFmpeg estimates."""
    head = data[:4096]
    at = head.find(b"\x44\x89")
    return at >= 0 and head[at + 2 : at + 3] in (b"\x84", b"\x88")


def _read_asf_end(data: bytes) -> float | None:
    at = data.find(_ASF_FILE_PROPERTIES, 0, 2**16)
    if at < 0 or len(data) < at + 92:
        return None
    play_100ns, _, preroll_ms, flags = struct.unpack("<QQQI", data[at + 64 : at + 92])
    is_broadcast = flags & 1
    return None if is_broadcast or not play_100ns else play_100ns / 1e7 - preroll_ms / 1e3


def read_mp3_length(frame: bytes) -> float | None:
    """The seconds that a Xing or Info header in the first frame announces (LAME writes it), None where there is none."""
    place = frame.find(b"Xing", 0, 256)
    if place < 0:
        place = frame.find(b"Info", 0, 256)
    if place < 0 or len(frame) < place + 12 or not frame[place + 7] & 1:
        return None
    frames = int.from_bytes(frame[place + 8 : place + 12], "big")
    version, layer, rate = frame[1] >> 3 & 3, 4 - (frame[1] >> 1 & 3), frame[2] >> 2 & 3
    if version == 1 or layer == 4 or rate == 3:
        return None
    rate_hz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    return frames * _SAMPLES_OF_FRAME[version == 3, layer] / rate_hz
