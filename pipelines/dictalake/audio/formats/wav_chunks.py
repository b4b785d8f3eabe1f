"""WAV and its relatives (RIFF, RIFX, RF64, BW64, W64) chunk by chunk: where the samples really are, whatever the sizes say.

Recorders that lose power leave sizes of 0, −1 or of the last flush. Such files, and objects with several ``data`` chunks or
several whole files, are written anew: one plain WAV header before the samples.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dictalake.audio.formats.more_samples import is_more_sound
from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED, Account

_RIFF = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
_W64_RIFF, _W64_TAIL = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_W64_FILE = re.compile(re.escape(_W64_RIFF) + b".{12}wave" + re.escape(_W64_TAIL), re.DOTALL)
_UNKNOWN_SIZE_64 = 2**62
_UNKNOWN_SIZE = 0x7FFF_0000  # from here on 32-bit sizes mean "not known yet"
_PCM, _EXTENSIBLE = 1, 0xFFFE
_SIDE_CHUNKS = {b"LIST", b"fact", b"bext", b"cue ", b"id3 ", b"ID3 ", b"JUNK", b"FLLR", b"PAD ", b"iXML", b"smpl", b"PEAK"}
_MOST_CHUNKS, _MOST_FILES = 1_000_000, 10_000  # what follows more than these counts as damage
_PLAIN = {_PCM, 3, 6, 7}  # float, A-law, µ-law
_MS_ADPCM, _IMA_ADPCM, _GSM = 2, 0x11, 0x31  # whose ``fmt`` says how many samples a block has
_MPEG = {0x50, 0x55}  # layers I and II, layer III
_MPEG_LENGTHS = re.compile(rb"Xing|Info|VBRI")
_LEAST_BYTES_PER_S = 100


@dataclass
class _File:
    """One RIFF file of the object. ``spans`` are the byte ranges of its samples."""

    order: str
    start: int
    fmt: bytes = b""
    spans: list[tuple[int, int]] = field(default_factory=list)
    account: Account = CLOSED
    data_size: int | None = None  # of ds64: what a data chunk of FFFFFFFF means


class _Chunk(NamedTuple):
    name: bytes
    body: int
    size: int
    next: int


def split_wav(data: bytes) -> list[Part]:
    """The WAV files in ``data``, in order; unchanged bytes where there is one and its header is true.

    Empty where no ``fmt`` or ``data`` chunk is found: then only the decoders may know what it is.
    """
    if data.startswith(_W64_RIFF):
        return _split(data, *_walk_w64(data))
    return _split(data, *_walk_riff(data))


def _split(data: bytes, files: list[_File], end: int) -> list[Part]:
    """``end`` is where the search for chunks was given up, or the end of the data."""
    files = [file for file in files if file.fmt and file.spans]
    parts = []
    for number, file in enumerate(files):
        fmt, is_repaired = _repair_fmt(file.fmt, file.order)
        account = file.account.also("header_repaired") if is_repaired else file.account
        if _read_kind(file) in _MPEG:
            parts.append(_take_out_mpeg(b"".join(data[start:end] for start, end in file.spans), account))
            continue
        if len(files) == 1 and len(file.spans) == 1 and account == CLOSED and end == len(data) and data[:4] != b"BW64":
            return [Part(data)]
        if len([span for span in file.spans if span[1] > span[0]]) > 1:
            account = account.also("joined")
        sound = b"".join(data[start:end] for start, end in file.spans)
        if sound or number == 0:
            parts.append(Part(_make_wav(file.order, fmt, len(sound)) + sound, account))
    if parts and end < len(data):
        parts[-1] = replace(parts[-1], is_whole=False, unread=len(data) - end)
    return parts


def _take_out_mpeg(sound: bytes, account: Account) -> Part:
    """The frames alone: libsndfile drops damaged ones without a word, and the reader of bare frames counts them."""
    if _MPEG_LENGTHS.search(sound, 0, 400):
        account = replace(account, lost_s=0.0)  # they announce their length themselves
    return Part(sound, account, container="mp3")


def _make_wav(order: str, fmt: bytes, size: int) -> bytes:
    name = b"RIFF" if order == "<" else b"RIFX"
    padded = fmt + b"\0" * (len(fmt) % 2)
    riff = min(size + len(padded) + 20, 0xFFFF_FFFF)
    return (
        name
        + struct.pack(f"{order}I", riff)
        + b"WAVEfmt "
        + struct.pack(f"{order}I", len(fmt))
        + padded
        + b"data"
        + struct.pack(f"{order}I", min(size, 0xFFFF_FFFF))
    )


def _repair_fmt(fmt: bytes, order: str) -> tuple[bytes, bool]:
    """A format of 14 bytes (WAVEFORMAT), or with 0 bits a sample, gets the bits that its block size implies."""
    if len(fmt) < 14:
        return fmt, False
    kind, channels, _, _, block = struct.unpack(f"{order}HHIIH", fmt[:14])
    bits = struct.unpack(f"{order}H", fmt[14:16])[0] if len(fmt) >= 16 else 0
    if bits or kind != _PCM or not channels or block % channels or not 1 <= block // channels <= 4:
        return fmt, False
    return fmt[:14] + struct.pack(f"{order}H", 8 * (block // channels)) + fmt[16:], True


def _walk_riff(data: bytes) -> tuple[list[_File], int]:
    files: list[_File] = []
    at = 0
    for _ in range(_MOST_CHUNKS):
        name = data[at : at + 4]
        if name in _RIFF and data[at + 8 : at + 12] == b"WAVE":
            if len(files) == _MOST_FILES:
                return files, at
            files.append(_File(_RIFF[name], at))
            at += 12
            continue
        chunk = _read_chunk(data, at, files[-1].order) if files else None
        if chunk is None:
            return files, len(data)
        at = _take_chunk(data, files[-1], chunk)
    return files, min(at, len(data))


def _read_chunk(data: bytes, at: int, order: str) -> _Chunk | None:
    if len(data) < at + 8:
        return None
    name, size = data[at : at + 4], struct.unpack(f"{order}I", data[at + 4 : at + 8])[0]
    if not name.strip() or any(not 32 <= byte < 127 for byte in name):
        return None
    body = at + 8
    return _Chunk(name, body, size, body + size + size % 2)


def _take_chunk(data: bytes, file: _File, chunk: _Chunk) -> int:
    """Notes what the chunk says; returns where the next one begins."""
    if chunk.name == b"ds64" and chunk.size >= 16:
        file.data_size = struct.unpack("<Q", data[chunk.body + 8 : chunk.body + 16].ljust(8, b"\0"))[0]
    elif chunk.name == b"fmt ":
        file.fmt = file.fmt or data[chunk.body : chunk.body + chunk.size]
    elif chunk.name == b"data":
        size: int | None = chunk.size
        if file.data_size is not None and chunk.size == 0xFFFF_FFFF:
            size = file.data_size
        if size is not None and size >= _UNKNOWN_SIZE_64:
            size = None
        if size is not None and (size >= _UNKNOWN_SIZE and file.data_size is None) and chunk.body + size > len(data):
            size = None
        return _take_samples(data, file, chunk.body, size or None)
    return chunk.next


def _take_samples(data: bytes, file: _File, body: int, size: int | None) -> int:
    """The samples from ``body`` on, of which the header announces ``size`` bytes, None for an unknown number."""
    block, per_s = _read_rates(file)
    if size is None:
        first = _read_chunk(data, body, file.order)
        if first is not None and _is_plausible(data, first):
            file.spans.append((body, body))  # really empty
            return body
        if body < len(data):
            file.account = file.account.also("header_open")
        file.spans.append((body, len(data)))
        return len(data)
    end = body + size
    if end > len(data):
        file.account = file.account.also("cut_end", lost_s=(end - len(data)) / per_s if per_s else 0.0)
        if not per_s:
            file.account = replace(file.account, lost_s=None)
        file.spans.append((body, len(data)))
        return len(data)
    for following in (end + size % 2, end, body + (size + 7) // 8 * 8):
        if following >= len(data) or _begins_chunk(data, following, file.order):
            file.spans.append((body, end))
            return following
    start = body + size // block * block
    tail = data[start:]
    head = _make_wav(file.order, _repair_fmt(file.fmt, file.order)[0], 0xFFFF_FFFF)
    if len(tail) > block and is_more_sound(head, data[body:start], tail, block):
        file.account = file.account.also("header_short")
        file.spans.append((body, len(data)))
        return len(data)
    file.account = file.account.also("trailing_bytes")
    file.spans.append((body, end))
    return len(data)


def _begins_chunk(data: bytes, at: int, order: str) -> bool:
    if (data[at : at + 4] in _RIFF and data[at + 8 : at + 12] == b"WAVE") or data[at + 4 : at + 16] == _W64_TAIL:
        return True
    chunk = _read_chunk(data, at, order)
    return chunk is not None and _is_plausible(data, chunk)


def _is_plausible(data: bytes, chunk: _Chunk) -> bool:
    """Whether this is a chunk rather than samples that look like one: known by name, or of a size that fits."""
    return chunk.name in _SIDE_CHUNKS or chunk.name == b"data" or (chunk.next <= len(data) + 1 and chunk.size > 0)


def _read_kind(file: _File) -> int:
    """The format tag; of WAVE_FORMAT_EXTENSIBLE the one inside its GUID."""
    at = 24 if file.fmt[:2] == struct.pack(f"{file.order}H", _EXTENSIBLE) and len(file.fmt) >= 26 else 0
    return int(struct.unpack(f"{file.order}H", file.fmt[at : at + 2].ljust(2, b"\0"))[0])


def _read_rates(file: _File) -> tuple[int, float]:
    """Bytes of a block (of one sample of every channel, in PCM) and of a second; 0.0 where nothing tells.

    The announced average of bytes a second is believed last: some writers leave it out.
    """
    if len(file.fmt) < 14:
        return 1, 0.0
    _, channels, rate_hz, average, block = struct.unpack(f"{file.order}HHIIH", file.fmt[:14])
    kind = _read_kind(file)
    if kind in _PLAIN:
        bits = struct.unpack(f"{file.order}H", file.fmt[14:16])[0] if len(file.fmt) >= 16 else 0
        width = block or (bits + 7) // 8 * channels
        return max(width, 1), float(rate_hz * width)
    samples = _read_block_samples(file, kind, channels, block)
    if samples and rate_hz and block:
        return block, rate_hz * block / samples
    is_plausible = _LEAST_BYTES_PER_S <= average <= 8 * rate_hz * max(channels, 1)
    return max(block, 1), float(average) if is_plausible else 0.0


def _read_block_samples(file: _File, kind: int, channels: int, block: int) -> int:
    """Samples of each channel in a block of ADPCM or GSM; 0 for other codings, and where that makes no sense."""
    if kind not in (_MS_ADPCM, _IMA_ADPCM, _GSM) or not channels:
        return 0
    samples = struct.unpack(f"{file.order}H", file.fmt[18:20])[0] if len(file.fmt) >= 20 else 0
    if samples:
        return int(samples)
    if kind == _GSM:
        return 320
    heads = (7 if kind == _MS_ADPCM else 4) * channels
    return max((block - heads) * 2 // channels + (2 if kind == _MS_ADPCM else 1), 0)


def _walk_w64(data: bytes) -> tuple[list[_File], int]:
    """Sony Wave64: names of 16 bytes, sizes of 64 bits that count their own header, chunks at multiples of 8."""
    starts = [match.start() for match in _W64_FILE.finditer(data)] or [0]
    ends = [*starts[1:], len(data)][:_MOST_FILES]
    files, chunks = [], 0
    for start, end in zip(starts[:_MOST_FILES], ends, strict=True):
        file, one = _File("<", start), data if len(starts) == 1 else data[start:end]
        for name, body, size in _read_w64_chunks(one):
            chunks += 1
            if name == b"fmt ":
                file.fmt = one[body : body + size]
            elif name == b"data" and _take_samples(one, file, body, size if 0 < size < _UNKNOWN_SIZE_64 else None) == len(one):
                break
        base = start if len(starts) > 1 else 0
        file.spans = [(first + base, last + base) for first, last in file.spans]
        files.append(file)
        if chunks > _MOST_CHUNKS:
            return files, end
    return files, ends[-1]


def _read_w64_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 40
    for _ in range(_MOST_CHUNKS):
        if at + 24 > len(data):
            return
        if data[at + 4 : at + 16] != _W64_TAIL:
            return
        size = struct.unpack("<Q", data[at + 16 : at + 24])[0]
        yield data[at : at + 4], at + 24, size - 24
        at += max((size + 7) // 8 * 8, 24)
