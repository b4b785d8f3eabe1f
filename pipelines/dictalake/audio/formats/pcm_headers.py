"""AIFF, AU and CAF: headers whose sizes say less than there is, or nothing, are written anew with the true ones."""

from __future__ import annotations

import re
import struct

from dictalake.audio.formats.more_samples import is_more_sound
from dictalake.audio.formats.parts import Part
from dictalake.records import CLOSED, Account

_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # bytes of a sample by encoding
_AIFC_BYTES = {b"ulaw": 1, b"alaw": 1, b"ULAW": 1, b"ALAW": 1}  # where it is not the bits of COMM that count
_AIFC_PCM = {b"NONE", b"sowt", b"twos", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32", *_AIFC_BYTES}
_CAF_PLAIN = {b"lpcm", b"ulaw", b"alaw"}
_UNKNOWN = 0xFFFF_FFFF
_MOST_CHUNKS, _MOST_FILES = 100_000, 10_000  # an object of more than these is left to the decoders


def split_pcm(data: bytes, container: str) -> list[Part]:
    """The files in ``data`` with true headers; unchanged where they are. ``container`` is aiff, au or caf."""
    signature, read = _READERS[container]
    starts = [match.start() for match in signature.finditer(data)]
    starts = starts if starts[:1] == [0] and len(starts) <= _MOST_FILES else [0]
    parts = []
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        parts += read(data[start:end] if end - start < len(data) else data)
    return parts


def _settle(data: bytes, body: int, claim: int | None, frame_bytes: int, per_s: float, head: bytes) -> tuple[int, Account]:
    """Where the samples from ``body`` on end, of which ``claim`` bytes are announced (None: unknown), and what that took."""
    if claim is None:
        return len(data), CLOSED.also("header_open") if body < len(data) else CLOSED
    if body + claim > len(data):
        return len(data), CLOSED.also("cut_end", lost_s=(body + claim - len(data)) / per_s if per_s else 0.0)
    start = body + claim // frame_bytes * frame_bytes
    tail = data[start:]
    if len(tail) <= max(frame_bytes, 2):
        return body + claim, CLOSED
    if is_more_sound(head, data[body:start], tail, frame_bytes):
        return len(data), CLOSED.also("header_short")
    return body + claim, CLOSED.also("trailing_bytes")


def _read_au(data: bytes) -> list[Part]:
    order = "<" if data[:4] == b"dns." else ">"
    if len(data) < 24:
        return [Part(data)]
    body, claim, encoding, rate_hz, channels = struct.unpack(f"{order}5I", data[4:24])
    width = _AU_BYTES.get(encoding)
    if width is None or not rate_hz or not 0 < channels < 1024 or body > len(data):
        return [Part(data)]
    frame = width * channels
    known = None if claim in (0, _UNKNOWN) else claim
    head = data[:8] + struct.pack(f"{order}I", _UNKNOWN) + data[12:body]
    end, account = _settle(data, body, known, frame, frame * rate_hz, head)
    if account == CLOSED:
        return [Part(data)]
    return [Part(data[:8] + struct.pack(f"{order}I", end - body) + data[12:end], account)]


def _read_caf(data: bytes) -> list[Part]:
    at, desc = 8, b""
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data):
            return [Part(data)]
        name, size = struct.unpack(">4sq", data[at : at + 12])
        if name == b"desc":
            desc = data[at + 12 : at + 44]
        if name == b"data":
            return _settle_caf(data, at, size, desc)
        if size < 0:
            return [Part(data)]
        at += 12 + size
    return [Part(data[:at])]  # nobody finds the sound of this


def _settle_caf(data: bytes, at: int, size: int, desc: bytes) -> list[Part]:
    if len(desc) < 32 or desc[8:12] not in _CAF_PLAIN:
        return [Part(data)]
    rate_hz, (packet_bytes,) = struct.unpack(">d", desc[:8])[0], struct.unpack(">I", desc[16:20])
    body = at + 16  # behind the number of edits
    following = at + 12 + size
    if size > 4 and following + 12 <= len(data) and _is_caf_chunk(data, following):
        return [Part(data)]
    if not 0 < packet_bytes < 4096 or not rate_hz > 0:
        return [Part(data)]

    def patch(end: int) -> bytes:
        return data[: at + 4] + struct.pack(">q", end - at - 12) + data[at + 12 : end]

    head = data[: at + 4] + struct.pack(">q", -1) + data[at + 12 : body]
    end, account = _settle(data, body, None if size <= 4 else size - 4, packet_bytes, packet_bytes * rate_hz, head)
    return [Part(data)] if account == CLOSED else [Part(patch(end), account)]


def _is_caf_chunk(data: bytes, at: int) -> bool:
    name, size = struct.unpack(">4sq", data[at : at + 12])
    return all(32 <= byte < 127 for byte in name) and 0 <= size <= len(data) - at - 12


def _read_aiff(data: bytes) -> list[Part]:
    at, common = 12, 0
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return [Part(data)]
        name, size = struct.unpack(">4sI", data[at : at + 8])
        if name == b"COMM" and size >= 18:
            common = at + 8
        if name == b"SSND" and common:
            return _settle_aiff(data, at, size, common)
        if not all(32 <= byte < 127 for byte in name):
            return [Part(data)]
        at += 8 + size + size % 2
    return [Part(data[:at])]  # nobody finds the sound of this


def _settle_aiff(data: bytes, at: int, size: int, common: int) -> list[Part]:
    channels, frames, bits = struct.unpack(">HIH", data[common : common + 8])
    coding = data[common + 18 : common + 22] if data[8:12] == b"AIFC" else b"NONE"
    body = at + 16
    if coding not in _AIFC_PCM or not 0 < channels < 1024 or body > len(data) or not 0 < bits <= 64:
        return [Part(data)]
    frame = _AIFC_BYTES.get(coding, (bits + 7) // 8) * channels
    rate_hz = _read_extended(data[common + 8 : common + 18])
    following = at + 8 + size + size % 2
    if size > 8 and following + 8 <= len(data) and _is_aiff_chunk(data, following):
        announced = min(frames * frame, size - 8)
        return (
            [Part(data)] if announced >= size - 8 - frame or not frames else _patch_aiff(data, at, common, frame, at + 8 + size)
        )
    claim = None if size in (0, 8, _UNKNOWN) or not frames else min(frames * frame, size - 8)
    if size > 8 and frames and frames * frame > size - 8:
        claim = frames * frame  # SSND of the last flush, COMM of the end
    head, _ = _write_aiff(data, at, common, frame, None)
    end, account = _settle(data, body, claim, frame, frame * rate_hz, head)
    if account == CLOSED and claim == size - 8:
        return [Part(data)]
    account = account if account != CLOSED else CLOSED.also("header_repaired")
    return [Part(_write_aiff(data, at, common, frame, end)[1], account)]


def _patch_aiff(data: bytes, at: int, common: int, frame: int, end: int) -> list[Part]:
    """COMM counts fewer frames than the closed SSND holds."""
    return [Part(_write_aiff(data, at, common, frame, end)[1], CLOSED.also("header_short"))]


def _write_aiff(data: bytes, at: int, common: int, frame: int, end: int | None) -> tuple[bytes, bytes]:
    """A header that announces as much as can be, and the whole file up to ``end`` with true sizes."""
    body = at + 16

    def write(sound_bytes: int) -> bytes:
        head = bytearray(data[:body])
        head[4:8] = struct.pack(">I", min(body - 8 + sound_bytes, _UNKNOWN))
        head[common + 2 : common + 6] = struct.pack(">I", min(sound_bytes // frame, _UNKNOWN))
        head[at + 4 : at + 8] = struct.pack(">I", min(sound_bytes + 8, _UNKNOWN))
        return bytes(head)

    if end is None:
        return write(2**31), b""
    return b"", write(max(end - body, 0)) + data[body:end]


def _is_aiff_chunk(data: bytes, at: int) -> bool:
    name, size = struct.unpack(">4sI", data[at : at + 8])
    return all(32 <= byte < 127 for byte in name) and size <= len(data) - at - 8


def _read_extended(value: bytes) -> float:
    """An 80-bit float (IEEE 754), as AIFF stores rates; 0.0 where it is no number."""
    exponent, mantissa = struct.unpack(">HQ", value.ljust(10, b"\0")[:10])
    try:
        return float(mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63))
    except OverflowError:
        return 0.0


# Each signature with enough of the header behind it that samples do not look like it
_READERS = {
    "aiff": (re.compile(rb"FORM.{4}AIF[FC](?:COMM|FVER|MARK|INST|NAME|ANNO|AUTH|COMT|SSND|ID3 )", re.DOTALL), _read_aiff),
    "au": (
        re.compile(
            rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1b]\x00[\x00-\x05].{2}\x00\x00[\x00\x01].|"
            rb"dns\..{2}\x00\x00.{4}[\x01-\x1b]\x00\x00\x00.{2}[\x00-\x05]\x00.[\x00\x01]\x00\x00",
            re.DOTALL,
        ),
        _read_au,
    ),
    "caf": (re.compile(rb"caff\x00\x01\x00[\x00\x01]desc", re.DOTALL), _read_caf),
}
