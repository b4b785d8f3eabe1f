"""What a file is, from its bytes alone.

=============  ==========================================================================================
name           recognised by
=============  ==========================================================================================
wav            ``RIFF``/``RIFX``/``RF64`` … ``WAVE``, or the W64 GUID
flac           ``fLaC``, after an ID3 tag too
mp3            an ID3 tag, or two MPEG audio frame headers that fit together (layers I–III)
aac            two ADTS headers that fit together
ogg            ``OggS`` (Vorbis, Opus, Speex, FLAC inside)
aiff, au, caf  ``FORM`` … ``AIFF``/``AIFC``; ``.snd``; ``caff``
mp4            ``ftyp`` box (m4a, mp4, 3gp)
matroska       EBML header (webm, mka, mkv)
asf            ASF GUID (wma)
amr            ``#!AMR``
dss            ``\\x02dss``, ``\\x03dss``; Grundig's ``\\x06dss`` is ``grundig_dss``
dicom          ``DICM`` at 128 (PS3.10 section 7.1), or a plausible first element of group 0002 or 0008
ds2, …         named, not read: ds2, ds2_encrypted, midi, zip, gzip, tar, pdf, image, text
=============  ==========================================================================================
"""

from __future__ import annotations

import struct
from typing import NamedTuple

DICOM = "dicom"
UNKNOWN = "unknown"
SNIFFED_BYTES = 2**16  # from the start of a file: enough to tell what it is

# How dictalake calls what it opens as an audio file, and FFmpeg's demuxer for it. Naming the demuxer keeps FFmpeg from
# choosing one by content: some (playlists, concat) would open other files that the bytes name.
DEMUXERS = {
    "wav": "wav",
    "w64": "w64",
    "flac": "flac",
    "mp3": "mp3",
    "aac": "aac",
    "ogg": "ogg",
    "aiff": "aiff",
    "au": "au",
    "caf": "caf",
    "mp4": "mp4",
    "matroska": "matroska",
    "asf": "asf",
    "amr": "amr",
    "dss": "dss",
}

_PREFIXES = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b".snd", "au"),
    (b"caff", "caf"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (b"#!AMR", "amr"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "w64"),
    (b"\x02dss", "dss"),
    (b"\x03dss", "dss"),
    (b"\x06dss", "grundig_dss"),
    (b"\x03ds2", "ds2"),
    (b"\x03enc", "ds2_encrypted"),
    (b"MThd", "midi"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"%PDF", "pdf"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
)
_TEXT_BYTES = 1024
_CONTROL = bytes(set(range(32)) - {9, 10, 12, 13, 27}) + b"\x7f"


def sniff(head: bytes) -> str:
    """The container's name (see the table above) or ``unknown``. Give all bytes, or the first 64 KiB; never raises."""
    if head[128:132] == b"DICM":  # first: the preamble before it may hold anything, another format's header too
        return DICOM
    if head[257:262] == b"ustar":  # before its first bytes, which are a file's name
        return "tar"
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    kind = head[8:12]
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and kind == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:3] == b"ID3":
        return _sniff_after_id3(head)
    if _is_bare_dicom(head):
        return DICOM
    return _sniff_frames(head) or ("text" if _is_text(head[:_TEXT_BYTES]) else UNKNOWN)


def name_container(container: str) -> str | None:
    """The public name of a sniffed audio file container (``w64`` is a ``wav``), None for what is not one."""
    if container not in DEMUXERS:
        return None
    return "wav" if container == "w64" else container


def _sniff_after_id3(head: bytes) -> str:
    """An ID3v2 tag (size: four bytes of seven bits) mostly means MP3, but taggers put it before FLAC and AAC too."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    rest = head[10 + size :]
    if rest.startswith(b"fLaC"):
        return "flac"
    return _sniff_frames(rest) or "mp3"


class _Frame(NamedTuple):
    name: str
    length: int
    fixed: tuple[int, ...]


def _sniff_frames(head: bytes) -> str | None:
    """mp3 or aac when a frame header is followed by one that fits it; a sync word alone is in every hundredth random file."""
    first = _read_mpeg_header(head, 0) or _read_adts_header(head, 0)
    if first is None or first.length > len(head):
        return None
    if first.length == len(head):
        return first.name
    read = _read_mpeg_header if first.name == "mp3" else _read_adts_header
    second = read(head, first.length)
    return first.name if second is not None and second.fixed == first.fixed else None


_BITRATES_KBPS = {  # ISO/IEC 11172-3 section 2.4.2.3 and 13818-3: (is version 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # versions 1, 2, 2.5


def _read_mpeg_header(data: bytes, at: int) -> _Frame | None:
    header = data[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    bits_per_s = _BITRATES_KBPS[version == 3, layer][bitrate - 1] * 1000
    rate_hz = _RATES_HZ[version][rate]
    if layer == 1:
        length = (12 * bits_per_s // rate_hz + padding) * 4
    else:
        length = (72 if layer == 3 and version != 3 else 144) * bits_per_s // rate_hz + padding
    return _Frame("mp3", length, (version, layer, rate))


def _read_adts_header(data: bytes, at: int) -> _Frame | None:
    """ISO/IEC 14496-3 annex 1.A.3."""
    header = data[at : at + 7]
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return _Frame("aac", length, (header[1], header[2])) if length > 7 else None


def _is_bare_dicom(head: bytes) -> bool:
    """DICOM written without preamble: the first element is a short one of group 0002 or 0008, in any byte order."""
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if head[4:6] in (b"UL", b"UI", b"CS", b"DA", b"TM", b"DT", b"LO", b"OB", b"SH"):
            return True
        if order == "<" and struct.unpack("<I", head[4:8])[0] <= 64 and head[8:].strip(b"\0"):
            return True
    return False


def _is_text(head: bytes) -> bool:
    if head.translate(None, _CONTROL) != head:
        return False
    for cut in range(4):  # the excerpt may end inside a character
        try:
            head[: len(head) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False
