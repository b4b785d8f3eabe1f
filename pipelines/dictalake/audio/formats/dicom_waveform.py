"""The waveform of a DICOM audio object: its multiplex groups (PS3.3 section C.10.9), from stored codes to samples in time.

==============================  ===============  ==================================================
Waveform Sample Interpretation  bits allocated   read as
==============================  ===============  ==================================================
UB, US, UL                      8, 16/24, 24/32  unsigned, the middle of the range is silence
SB, SS, SL                      8, 16/24, 24/32  two's complement
MB, AB                          8                ITU-T G.711 µ-law, A-law
==============================  ===============  ==================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from dictalake.audio.formats.g711 import expand_a_law, expand_mu_law
from dictalake.audio.formats.limits import check_format, check_length, check_not_empty
from dictalake.audio.formats.reader import DecodeSession
from dictalake.errors import CorruptAudio, UnsupportedCodec
from dictalake.records import CLOSED, Account

_BLOCK_FRAMES = 2**16
_PADDING_S = 0.02
INTERPRETATIONS = {  # (interpretation, bits allocated): (codec, NumPy kind; 24 bits are widened to the top of 32)
    ("UB", 8): ("pcm_u8", "u1"),
    ("SB", 8): ("pcm_s8", "i1"),
    ("MB", 8): ("mu_law", "u1"),
    ("AB", 8): ("a_law", "u1"),
    ("US", 16): ("pcm_u16", "u2"),
    ("SS", 16): ("pcm_s16", "i2"),
    ("US", 24): ("pcm_u24", "u4"),
    ("SS", 24): ("pcm_s24", "i4"),
    ("UL", 24): ("pcm_u24", "u4"),
    ("SL", 24): ("pcm_s24", "i4"),
    ("UL", 32): ("pcm_u32", "u4"),
    ("SL", 32): ("pcm_s32", "i4"),
}


class Group(NamedTuple):
    """One multiplex group: ``codes`` ``(frames, channels)`` as stored, and where in them silence and full scale lie.

    ``start`` is the frame of the recording that the group begins at, None where the object does not say.
    """

    codes: np.ndarray
    sample_rate_hz: int
    codec: str
    bits: int
    interpretation: str
    centre: np.ndarray
    full_scale: float
    padding: int | None
    start: int | None
    account: Account = CLOSED

    @property
    def frames(self) -> int:
        return len(self.codes)

    @property
    def channels(self) -> int:
        return int(self.codes.shape[1])

    def read(self, first: int, last: int) -> np.ndarray:
        """float32 ``(channels, last − first)``; beyond the group's end, silence."""
        codes = self.codes[max(first, 0) : max(last, 0)]
        samples = _to_float(codes, self)
        if self.padding is not None:
            samples[codes == self.padding] = 0.0
        return np.pad(samples.T, ((0, 0), (max(-first, 0), last - max(first, 0) - len(codes))))


def take_groups(groups: list[Group], session: DecodeSession) -> tuple[np.ndarray, int]:
    """Groups one after the other where they follow each other in time, else side by side as further channels."""
    rate_hz = groups[0].sample_rate_hz
    if any(group.sample_rate_hz != rate_hz for group in groups):
        rates = ", ".join(f"{group.sample_rate_hz} Hz" for group in groups)
        raise UnsupportedCodec(session.recording_id, f"multiplex groups of unlike rates ({rates}); export them apart")
    starts = _place(groups)
    alike = all(group.channels == groups[0].channels for group in groups)
    in_a_row = alike and all(starts[i] + groups[i].frames <= starts[i + 1] for i in range(len(groups) - 1))
    end = max(start + group.frames for start, group in zip(starts, groups, strict=True))
    channels = groups[0].channels if in_a_row else sum(group.channels for group in groups)
    check_format(session.recording_id, rate_hz, channels, session.limits)
    check_length(session.recording_id, end, rate_hz, session.limits)

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, end, _BLOCK_FRAMES):
            last = min(first + _BLOCK_FRAMES, end)
            parts = [group.read(first - start, last - start) for start, group in zip(starts, groups, strict=True)]
            yield np.sum(parts, axis=0) if in_a_row else np.concatenate(parts)

    check_not_empty(session.recording_id, sum(group.frames for group in groups))
    return session.take(rate_hz, blocks())[0], channels


def _place(groups: list[Group]) -> list[int]:
    """The first frame of each group: as (0018,1068) says, counted from the earliest; else alike groups follow each other, and
    unlike ones sound together."""
    if all(group.start is not None for group in groups):
        earliest = min(group.start or 0 for group in groups)
        return [(group.start or 0) - earliest for group in groups]
    if any(group.channels != groups[0].channels for group in groups):
        return [0] * len(groups)
    return [sum(group.frames for group in groups[:index]) for index in range(len(groups))]


def read_group(dataset: Dataset, index: int, session: DecodeSession) -> Group:
    item, recording_id = dataset.WaveformSequence[index], session.recording_id
    place = f"in item {index + 1} of WaveformSequence"
    channels = _require_int(item, "NumberOfWaveformChannels", place, recording_id)
    frames = _require_int(item, "NumberOfWaveformSamples", place, recording_id)
    rate_hz = _read_rate(item, recording_id, place)
    check_format(recording_id, rate_hz, channels, session.limits)
    check_length(recording_id, frames, rate_hz, session.limits)
    bits = _require_int(item, "WaveformBitsAllocated", place, recording_id)
    interpretation = str(item.get("WaveformSampleInterpretation") or "").strip()
    codec, kind = INTERPRETATIONS.get((interpretation, bits), ("", ""))
    if not codec:
        shown = interpretation if re.fullmatch("[A-Z]{2}", interpretation) else "nothing known"
        allowed = ", ".join(f"{name} {size}" for name, size in INTERPRETATIONS)
        raise UnsupportedCodec(
            recording_id, f"(5400,1006) WaveformSampleInterpretation {place} is {shown} with {bits} bits; allowed: {allowed}"
        )
    raw, big_endian = _read_bytes(item, bits, recording_id, place)
    frame_bytes = channels * bits // 8
    more = len(raw) // frame_bytes - frames
    account = CLOSED
    # An even length has one byte of padding; a recorder that died after its first flush leaves seconds.
    if more > _PADDING_S * rate_hz and raw[frames * frame_bytes :].strip(raw[-1:]):
        frames, account = frames + more, CLOSED.also("header_short")
        check_length(recording_id, frames, rate_hz, session.limits)
    wanted_bytes = frames * frame_bytes
    if len(raw) < wanted_bytes:
        raise CorruptAudio(
            recording_id,
            f"(5400,1010) WaveformData {place} holds {len(raw)} bytes of the {wanted_bytes} announced; export it again",
        )
    codes = _read_codes(raw[:wanted_bytes], bits, kind, big_endian).reshape(frames, channels)
    stored_bits = _bits_stored(item, codes, bits)
    if bits == 24:
        stored_bits += 8
    full_scale = float(2 ** (stored_bits - 1))
    return Group(
        codes=codes,
        sample_rate_hz=rate_hz,
        codec=codec,
        bits=bits,
        interpretation=interpretation,
        centre=_find_centre(item, codes, full_scale),
        full_scale=full_scale,
        padding=_read_padding(item, bits, kind, big_endian),
        start=_read_start(item, rate_hz, session),
        account=account,
    )


def _read_codes(raw: bytes, bits: int, kind: str, big_endian: bool) -> np.ndarray:
    """The samples as NumPy integers; three bytes become the upper ones of four."""
    order = ">" if big_endian else "<"
    if bits != 24:
        return np.frombuffer(raw, dtype=f"{order}{kind}")
    packed = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3)
    widened = np.zeros((len(packed), 4), dtype=np.uint8)
    widened[:, slice(0, 3) if big_endian else slice(1, 4)] = packed
    return widened.view(f"{order}{kind}")[:, 0]


def _read_bytes(item: Dataset, bits: int, recording_id: str, place: str) -> tuple[bytes, bool]:
    """WaveformData and whether its words are big-endian; pydicom leaves OW as it is stored (PS3.5 section 7.3)."""
    if "WaveformData" not in item:
        raise CorruptAudio(recording_id, f"(5400,1010) WaveformData is missing {place}")
    element = item["WaveformData"]
    raw = element.value
    if raw is None:
        raw = b""
    if not isinstance(raw, bytes):
        raise CorruptAudio(recording_id, f"(5400,1010) WaveformData {place} is not bytes")
    big_endian = item.original_encoding[1] is False
    if big_endian and bits == 8 and element.VR == "OW":  # 8-bit samples packed into swapped words
        raw = np.frombuffer(raw[: len(raw) // 2 * 2], dtype=">u2").astype("<u2").tobytes()
    return raw, big_endian


def _to_float(codes: np.ndarray, group: Group) -> np.ndarray:
    """``(frames, channels)`` as stored to float32 of the same shape in [-1, 1]."""
    if group.interpretation == "MB":
        return expand_mu_law(codes)
    if group.interpretation == "AB":
        return expand_a_law(codes)
    # 32-bit codes do not fit float32: centred in float64 first
    exact = np.float32 if codes.dtype.itemsize < 4 else np.float64
    return np.asarray((codes.astype(exact) - group.centre.astype(exact)) / exact(group.full_scale), dtype=np.float32)


def _definitions(item: Dataset) -> list[Dataset]:
    return list(item.get("ChannelDefinitionSequence") or [])


def _find_centre(item: Dataset, codes: np.ndarray, full_scale: float) -> np.ndarray:
    """The code of silence in each channel, ``(channels,)``: the middle of the range, unless the channel's definition differs.

    A sample means ``code × sensitivity × correction + baseline`` (PS3.3 section C.10.9.1.4), so zero lies at
    ``−baseline ÷ (sensitivity × correction)``. The sensitivity itself is a unit, not a loudness, and is left out. What real
    files say there is often nonsense: only a zero within the upper or lower half of full scale is believed.
    """
    middle = full_scale if codes.dtype.kind == "u" else 0.0
    centres = np.full(codes.shape[1], middle)
    for channel, definition in enumerate(_definitions(item)[: codes.shape[1]]):
        values = (
            _read_number(definition, "ChannelSensitivity"),
            _read_number(definition, "ChannelSensitivityCorrectionFactor", 1.0),
            _read_number(definition, "ChannelBaseline"),
        )
        if all(value is not None for value in values):
            sensitivity, correction, baseline = (value or 0.0 for value in values)
            factor = sensitivity * correction
            if factor and abs(-baseline / factor - middle) <= full_scale / 2:
                centres[channel] = -baseline / factor
    return centres


def _read_number(item: Dataset, keyword: str, default: float | None = None) -> float | None:
    value = item.get(keyword)
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except ValueError:
        number = math.nan
    return number if math.isfinite(number) else default


def _read_padding(item: Dataset, bits: int, kind: str, big_endian: bool) -> int | None:
    """(5400,100A) WaveformPaddingValue: what stands where nothing was recorded."""
    value = item.get("WaveformPaddingValue")
    if isinstance(value, bytes) and len(value) >= bits // 8:
        return int(_read_codes(value[: bits // 8], bits, kind, big_endian)[0])
    return None


def _read_start(item: Dataset, rate_hz: int, session: DecodeSession) -> int | None:
    """(0018,1068) MultiplexGroupTimeOffset, milliseconds, as a frame; one beyond all permitted audio is not believed."""
    offset_ms = _read_number(item, "MultiplexGroupTimeOffset")
    if offset_ms is None or abs(offset_ms) > session.limits.duration_h * 3_600_000:
        return None
    return round(offset_ms * rate_hz / 1000)


def _bits_stored(item: Dataset, codes: np.ndarray, allocated: int) -> int:
    """(003A,021A) WaveformBitsStored: 12-bit samples in 16-bit words have their middle and full scale at 12 bits.

    Real files lack the channel definition, or state fewer bits than the samples use: then all allocated bits count.
    """
    definitions = _definitions(item)
    stored = definitions[0].get("WaveformBitsStored") if definitions else None
    if not isinstance(stored, int) or not 2 <= stored < allocated or codes.size == 0 or allocated == 24:
        return allocated
    if codes.dtype.kind == "u":
        fits = int(codes.max()) < 2**stored
    else:
        fits = -(2 ** (stored - 1)) <= int(codes.min()) and int(codes.max()) < 2 ** (stored - 1)
    return stored if fits else allocated


def _require_int(item: Dataset, keyword: str, place: str, recording_id: str) -> int:
    value = item.get(keyword)
    if not isinstance(value, int) or value < 0:
        tag = pydicom.datadict.tag_for_keyword(keyword) or 0
        name = f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword}"
        raise CorruptAudio(recording_id, f"{name} {place} is {'missing' if value is None else 'not one whole number'}")
    return value


def _read_rate(item: Dataset, recording_id: str, place: str) -> int:
    """(003A,001A) SamplingFrequency in Hz, rounded: a decimal string such as ``8000.0``."""
    rate_hz = _read_number(item, "SamplingFrequency")
    if rate_hz is None:
        raise CorruptAudio(recording_id, f"(003A,001A) SamplingFrequency is missing or not a number {place}")
    return round(rate_hz)
