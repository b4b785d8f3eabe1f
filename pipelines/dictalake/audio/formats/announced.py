"""What containers announce about the length of their sound, where FFmpeg does not say whether it knows or guesses."""

from __future__ import annotations

import struct
from typing import NamedTuple

import av

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_XING_REACH = 4096  # bytes before the end of the first frame of sound
_INDEXED = {"mp4", "wavpack", "tta", "ape"}  # their demuxers take the length from an index or a header, never from bytes


class FlacInfo(NamedTuple):
    """STREAMINFO (RFC 9639 section 8.2): ``samples`` is 0 where the encoder did not know it."""

    rate_hz: int
    samples: int


def read_flac_info(data: bytes) -> FlacInfo | None:
    if data[:4] != b"fLaC" or len(data) < 42 or data[4] & 0x7F != 0:
        return None
    packed = int.from_bytes(data[18:26], "big")
    return FlacInfo(packed >> 44, packed & (1 << 36) - 1)


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
    if container == "avi":
        return _read_avi_end(data), False
    if container == "matroska" and file.duration and _has_matroska_duration(data):
        return file.duration / av.time_base, True
    if container == "flv" and file.duration and b"onMetaData" in data[:4096] and b"\x08duration" in data[:65536]:
        return file.duration / av.time_base, True
    if container == "asf":
        return _read_asf_end(data), False
    return None, False


def _has_matroska_duration(data: bytes) -> bool:
    """Whether the head holds a Duration element (44 89) of a float; without one FFmpeg estimates."""
    head = data[:4096]
    at = head.find(b"\x44\x89")
    return at >= 0 and head[at + 2 : at + 3] in (b"\x84", b"\x88")


def _read_avi_end(data: bytes) -> float | None:
    """By the stream header of the sound: AVISTREAMHEADER has its length in units of dwScale / dwRate seconds."""
    at = data.find(b"auds", 0, 2**16)
    if at < 8 or data[at - 8 : at - 4] != b"strh" or len(data) < at + 36:
        return None
    scale, rate, _, length = struct.unpack("<4I", data[at + 20 : at + 36])
    return length * scale / rate if rate and scale and length else None


def _read_asf_end(data: bytes) -> float | None:
    at = data.find(_ASF_FILE_PROPERTIES, 0, 2**16)
    if at < 0 or len(data) < at + 92:
        return None
    play_100ns, _, preroll_ms, flags = struct.unpack("<QQQI", data[at + 64 : at + 92])
    is_broadcast = flags & 1
    return None if is_broadcast or not play_100ns else play_100ns / 1e7 - preroll_ms / 1e3


def find_mp3_length(data: bytes) -> float | None:
    """The seconds that the last Xing, Info (LAME) or VBRI (Fraunhofer) header in ``data`` announces, None without one.

    It stands in a frame without sound, which FFmpeg skips, before the first frame of sound.
    """
    vbri = data.rfind(b"VBRI", max(len(data) - _XING_REACH, 0))
    if vbri >= 36 and len(data) >= vbri + 18 and (frame := _read_frame(data, vbri - 36)) is not None:
        return int.from_bytes(data[vbri + 14 : vbri + 18], "big") * frame[1] / frame[0]
    place = max(data.rfind(b"Xing"), data.rfind(b"Info"))
    if place < 0 or place < len(data) - _XING_REACH or len(data) < place + 12 or not data[place + 7] & 1:
        return None
    for before in (13, 21, 36, 15, 23, 38):  # the frame's header, its side information, and a checksum where there is one
        frame = _read_frame(data, place - before)
        if frame is not None:
            samples = int.from_bytes(data[place + 8 : place + 12], "big") * frame[1]
            return (samples - _count_lame_padding(data, place)) / frame[0]
    return None


def _read_frame(data: bytes, at: int) -> tuple[int, int] | None:
    """The rate in Hz and the samples of a frame of layer III, by its header at ``at``."""
    header = data[at : at + 4] if at >= 0 else b""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer, rate = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 2 & 3
    if version == 1 or layer != 3 or rate == 3:
        return None
    return (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version], 1152 if version == 3 else 576


def _count_lame_padding(data: bytes, place: int) -> int:
    """The samples that the encoder put before and behind the sound, and decoders take away again, by the LAME tag."""
    tag = data[place + 120 : place + 144]
    if len(tag) < 24 or data[place + 7] & 15 != 15 or not tag[:4].isalpha():
        return 0
    packed = int.from_bytes(tag[21:24], "big")
    return (packed >> 12) + (packed & 0xFFF)
