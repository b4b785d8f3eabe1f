"""What a file is, and where in it the sound begins, from its bytes alone. The names are those of ``containers.py``.

``sniff`` looks at the first bytes. ``find_start`` looks further where those are of no known kind: behind zeros, a byte order
mark, the header of an HTTP response or of a multipart message, or what was left of a frame that was cut. There a magic
number alone is not enough: the field behind it has to fit too.
"""

from __future__ import annotations

import re

from dictalake.audio.formats.containers import CONTAINERS, DICOM, NOT_AUDIO, REFUSED, UNKNOWN
from dictalake.audio.formats.frames import find_frames, find_transport_stream, sniff_frames
from dictalake.audio.formats.magic import NEEDLES, is_text, sniff_magic, sniff_text

__all__ = ["DEMUXERS", "DICOM", "SNIFFED_BYTES", "UNKNOWN", "find_start", "is_tag", "name_container", "sniff"]

SNIFFED_BYTES = 2**16  # from the start of a file: enough to tell what it is
DEMUXERS = {name: container.demuxer for name, container in CONTAINERS.items()}
_TAG_BYTES = 10
_FEW_LETTERS = 4
_HTTP = re.compile(rb"(?:HTTP/\d|ICY |--)[^\r\n\0]{1,256}\r?\n(?:[!-9;-~]+:[^\r\n\0]*\r?\n)+\r?\n|HTTP/\d[^\r\n\0]*\r?\n\r?\n")
_NEEDLE = re.compile(b"|".join(re.escape(needle) for needle in NEEDLES))


def sniff(head: bytes) -> str:
    """The container's name or ``unknown``, behind tags too. Give all bytes, or the first 64 KiB; never raises."""
    name = _sniff_at_once(head)
    if name != UNKNOWN:
        return name
    behind = skip_tags(head)
    if not behind:
        return sniff_text(head) or UNKNOWN
    name = _sniff_at_once(head[behind : behind + SNIFFED_BYTES])
    return name if _may_follow_tag(name) else "mp3"


def find_start(data: bytes) -> tuple[int, str]:
    """Where the container begins in ``data``, and its name. (0, what ``sniff`` says) where no audio is found further on."""
    name = sniff(data)
    behind = skip_tags(data)
    if behind and (name == "mp3" or _may_follow_tag(name)):
        if _sniff_at_once(data[behind : behind + SNIFFED_BYTES]) == name or name not in ("mp3", UNKNOWN):
            return behind, name
        found = _search(data, behind)
        return found if found is not None else (0, name)
    if name == "text":
        http = _HTTP.match(data)
        if http is None and is_text(data[:SNIFFED_BYTES]):
            return 0, name
    elif name != UNKNOWN:
        return 0, name
    return _search(data, 0) or (0, name)


def is_tag(data: bytes, offset: int) -> bool:
    """Whether nothing but tags, and zeros that pad them, stands before ``offset``."""
    behind = skip_tags(data)
    return 0 < behind <= offset and not data[behind:offset].strip(b"\0")


def is_tellable_text(data: bytes) -> bool:
    """Whether what ``sniff`` calls text is text to a reader: coded silence may be letters too, but few different ones."""
    head = data[:SNIFFED_BYTES]
    return is_text(head) and len(set(head)) > _FEW_LETTERS


def skip_tags(data: bytes) -> int:
    """Where the tags at the beginning end: ID3v2 (size: four bytes of seven bits), ID3v1 and APEv2, one behind another."""
    at = 0
    while True:
        head = data[at : at + 32]
        if head[:3] == b"ID3" and len(head) >= _TAG_BYTES and head[3] < 0xFF and max(head[6:10]) < 0x80:
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte
            at += _TAG_BYTES + size + (_TAG_BYTES if head[5] & 0x10 else 0)  # a footer
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            at += 32 + int.from_bytes(head[12:16], "little")
        elif (
            head[:3] == b"TAG" and at + 128 < len(data) and _sniff_at_once(data[at + 128 : at + 128 + SNIFFED_BYTES]) != UNKNOWN
        ):
            at += 128
        else:
            return min(at, len(data))


def name_container(container: str) -> str | None:
    """The public name of a sniffed audio file container (``w64`` is a ``wav``), None for what is not one."""
    if container not in CONTAINERS:
        return None
    return "wav" if container == "w64" else container


def _sniff_at_once(head: bytes) -> str:
    return sniff_magic(head) or sniff_frames(head) or UNKNOWN


def _may_follow_tag(name: str) -> bool:
    return name in CONTAINERS or (name in REFUSED and name not in NOT_AUDIO)


def _search(data: bytes, start: int) -> tuple[int, str] | None:
    """The first audio container from ``start`` on: at once behind zeros or a header, else within the next 64 KiB."""
    at = start
    while http := _HTTP.match(data, at):
        at = http.end()
    if data[at : at + 3] == b"\xef\xbb\xbf":
        at += 3
    elif data[at : at + 2] in (b"\xff\xfe", b"\xfe\xff"):
        at += 2
    name = _sniff_at_once(data[at : at + SNIFFED_BYTES])
    if at > start and name in CONTAINERS:
        return at, name
    zeros = _count_zeros(data, at)
    at += max(zeros - 8, 0)  # a box of MP4 and a pack of MPEG begin with zeros themselves
    end = min(at + SNIFFED_BYTES, len(data))
    found = [
        *_find_needles(data, at, end),
        *([frames] if (frames := find_frames(data, at, end)) else []),
        *([(stream, "mpegts")] if (stream := find_transport_stream(data, at, end)) is not None else []),
    ]
    return min(found, default=None)


def _find_needles(data: bytes, start: int, end: int) -> list[tuple[int, str]]:
    """The first magic number whose next field fits too."""
    for match in _NEEDLE.finditer(data, start, end):
        offset, names = NEEDLES[match[0]]
        at = match.start() - offset
        if at < start:
            continue
        name = sniff_magic(data[at : at + SNIFFED_BYTES], strict=True)
        if name in names:
            return [(at, name)]
    return []


def _count_zeros(data: bytes, at: int) -> int:
    zeros = 0
    while block := data[at + zeros : at + zeros + 2**20]:
        left = len(block.lstrip(b"\0"))
        zeros += len(block) - left
        if left:
            break
    return zeros
