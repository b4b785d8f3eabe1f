"""DICOM audio waveforms to samples (PS3.3 sections A.34.2, A.34.10 and C.10.9).

Storage classes: Basic Voice Audio ``1.2.840.10008.5.1.4.1.1.9.4.1`` and General Audio ``…9.4.2``; any other class with a
waveform (ECG, …) is refused. Transfer syntaxes: implicit, explicit little-endian, deflated, explicit big-endian.

=====================================  =========  ==================================================
Waveform Sample Interpretation         bits       read as
=====================================  =========  ==================================================
UB, US                                 8, 16      unsigned, the middle of the range is silence
SB, SS                                 8, 16      two's complement
MB, AB                                 8          ITU-T G.711 µ-law, A-law
=====================================  =========  ==================================================

Only an allow-list of attributes is ever parsed, and pydicom's warnings are off: they print values.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import warnings
import zlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pydicom.config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from pipelines.archive.g711 import expand_a_law, expand_mu_law
from pipelines.archive.limits import MAX_SAMPLES, check_format, check_length, check_not_empty
from pipelines.errors import CorruptAudio, NoAudio, NotAudio, TooLong, UnsupportedCodec
from pipelines.records import AudioFormat, DecodedAudio

# For the whole process, not around each call: a filter that one thread restores would let another thread's warning out.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")

AUDIO_CLASSES = ("1.2.840.10008.5.1.4.1.1.9.4.1", "1.2.840.10008.5.1.4.1.1.9.4.2")
INTERPRETATIONS = {  # (codec, bits, NumPy kind)
    "UB": ("pcm_u8", 8, "u1"),
    "SB": ("pcm_s8", 8, "i1"),
    "US": ("pcm_u16", 16, "u2"),
    "SS": ("pcm_s16", 16, "i2"),
    "MB": ("mu_law", 8, "u1"),
    "AB": ("a_law", 8, "u1"),
}
_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_TEXTS = ("Modality", "Manufacturer", "ManufacturerModelName")
_TIMES = ("ContentDate", "ContentTime", "AcquisitionDateTime", "TimezoneOffsetFromUTC")
# What pydicom is known to raise on damaged or hostile files; their texts may hold values, so only the type is kept.
_PARSE_ERRORS = (
    pydicom.errors.InvalidDicomError,
    pydicom.errors.BytesLengthException,
    EOFError,
    AttributeError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    RuntimeError,  # RecursionError (sequences nested without end) and NotImplementedError are among these
    OSError,
    struct.error,
    zlib.error,
)


class _Group(NamedTuple):
    """One multiplex group: ``samples`` float32 ``(channels, frames)``."""

    samples: np.ndarray
    sample_rate_hz: int
    codec: str
    bits: int


def decode_dicom(data: bytes, recording_id: str) -> DecodedAudio:
    """All multiplex groups of a DICOM audio object one after the other, float32 ``(channels, frames)`` in [-1, 1].

    Raises NotAudio (no DICOM, or a waveform that is not audio), NoAudio (no waveform, no samples), UnsupportedCodec, TooLong
    or CorruptAudio, whose details name tags and items, never values of patients.
    """
    try:
        dataset = _read(data, recording_id)
        _check_class(dataset, data, recording_id)
        groups = [_read_group(dataset, index, recording_id) for index in range(len(dataset.WaveformSequence))]
        attributes = _read_attributes(dataset)
    except _PARSE_ERRORS as error:
        detail = f"the DICOM object cannot be parsed ({type(error).__name__}); export it again"
        raise CorruptAudio(recording_id, detail) from None
    if not groups:
        raise NoAudio(recording_id, "(5400,0100) WaveformSequence of the DICOM object has no item")
    first = groups[0]
    if any((g.sample_rate_hz, len(g.samples)) != (first.sample_rate_hz, len(first.samples)) for g in groups):
        found = ", ".join(f"{len(g.samples)} × {g.sample_rate_hz} Hz" for g in groups)
        raise UnsupportedCodec(
            recording_id, f"multiplex groups of unlike channels or rates ({found}) cannot be joined; export them apart"
        )
    check_length(recording_id, sum(g.samples.shape[1] for g in groups), first.sample_rate_hz, len(first.samples))
    samples = np.concatenate([g.samples for g in groups], axis=1)
    check_not_empty(recording_id, samples.shape[1])
    stored = AudioFormat("dicom", first.codec, first.sample_rate_hz, len(samples), first.bits)
    return DecodedAudio(samples, stored, attributes)


def _read(data: bytes, recording_id: str) -> Dataset:
    _refuse_bomb(data, recording_id)
    wanted = [*_UIDS, *_TEXTS, *_TIMES, "WaveformSequence"]
    return pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=wanted)


def _refuse_bomb(data: bytes, recording_id: str) -> None:
    """Raises TooLong where a deflated object inflates to more than any permitted audio: pydicom would inflate it all."""
    file = io.BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left, rest, step = 2 * MAX_SAMPLES, file.read(), 2**24
    while rest and left > 0:
        left -= len(inflater.decompress(rest, step))
        rest = inflater.unconsumed_tail
    if left <= 0:
        raise TooLong(recording_id, f"the deflated DICOM object inflates to more than {2 * MAX_SAMPLES} bytes")


def _check_class(dataset: Dataset, data: bytes, recording_id: str) -> None:
    sop_class = _read_uid(dataset, "SOPClassUID")
    if "WaveformSequence" not in dataset:
        if sop_class is None and data[128:132] != b"DICM":
            raise NotAudio(recording_id, "the bytes are of no audio format that is known here")
        raise NoAudio(recording_id, "the DICOM object has no (5400,0100) WaveformSequence, so it holds no sound")
    if sop_class is not None and sop_class not in AUDIO_CLASSES:
        name = UID(sop_class).name  # the UID itself where pydicom knows no name
        raise NotAudio(recording_id, f"the waveform is not sound: {name}; audio is {' or '.join(AUDIO_CLASSES)}")


def _read_group(dataset: Dataset, index: int, recording_id: str) -> _Group:
    item = dataset.WaveformSequence[index]
    place = f"in item {index + 1} of WaveformSequence"
    channels = _require_int(item, "NumberOfWaveformChannels", place, recording_id)
    frames = _require_int(item, "NumberOfWaveformSamples", place, recording_id)
    rate_hz = _read_rate(item, recording_id, place)
    check_format(recording_id, rate_hz, channels)
    check_length(recording_id, frames, rate_hz, channels)
    allocated = _require_int(item, "WaveformBitsAllocated", place, recording_id)
    interpretation = str(item.get("WaveformSampleInterpretation") or "").strip()
    codec, bits, kind = INTERPRETATIONS.get(interpretation, ("", 0, ""))
    if not codec or allocated != bits:
        shown = interpretation if re.fullmatch("[A-Z]{2}", interpretation) else "nothing known"
        allowed = ", ".join(f"{name} {known[1]}" for name, known in INTERPRETATIONS.items())
        raise UnsupportedCodec(
            recording_id,
            f"(5400,1006) WaveformSampleInterpretation {place} is {shown} with {allocated} bits; allowed: {allowed}",
        )
    wanted_bytes = frames * channels * bits // 8
    raw, big_endian = _read_bytes(item, bits, recording_id, place)
    if len(raw) < wanted_bytes:
        raise CorruptAudio(
            recording_id,
            f"(5400,1010) WaveformData {place} holds {len(raw)} bytes of the {wanted_bytes} announced; export it again",
        )
    codes = np.frombuffer(raw, dtype=f"{'>' if big_endian else '<'}{kind}", count=frames * channels)
    return _Group(_to_float(codes, interpretation, item).reshape(frames, channels).T.copy(), rate_hz, codec, bits)


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


def _to_float(codes: np.ndarray, interpretation: str, item: Dataset) -> np.ndarray:
    if interpretation == "MB":
        return expand_mu_law(codes)
    if interpretation == "AB":
        return expand_a_law(codes)
    allocated = codes.dtype.itemsize * 8
    values = codes.astype(np.float32)
    if codes.dtype.kind == "u":
        half = float(2 ** (_bits_stored(item, codes, allocated) - 1))
        return (values - half) / half
    return values / float(2 ** (_bits_stored(item, codes, allocated) - 1))


def _bits_stored(item: Dataset, codes: np.ndarray, allocated: int) -> int:
    """(003A,021A) WaveformBitsStored: 12-bit samples in 16-bit words have their middle and full scale at 12 bits.

    Real files lack the channel definition, or state fewer bits than the samples use: then all allocated bits count.
    """
    definitions = item.get("ChannelDefinitionSequence") or []
    stored = definitions[0].get("WaveformBitsStored") if len(definitions) else None
    if not isinstance(stored, int) or not 2 <= stored < allocated or codes.size == 0:
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
    value = item.get("SamplingFrequency")
    rate_hz = float(value) if isinstance(value, (int, float, str)) and str(value).strip() else math.nan
    if not math.isfinite(rate_hz):
        raise CorruptAudio(recording_id, f"(003A,001A) SamplingFrequency is missing or not a number {place}")
    return round(rate_hz)


def _read_attributes(dataset: Dataset) -> dict[str, str | datetime | None]:
    """The allow-list in snake_case; absent, empty and malformed ones are None."""
    return {
        "sop_class_uid": _read_uid(dataset, "SOPClassUID"),
        "sop_instance_uid": _read_uid(dataset, "SOPInstanceUID"),
        "series_instance_uid": _read_uid(dataset, "SeriesInstanceUID"),
        "study_instance_uid": _read_uid(dataset, "StudyInstanceUID"),
        "content_datetime": _read_datetime(dataset),
        "modality": _read_text(dataset, "Modality"),
        "manufacturer": _read_text(dataset, "Manufacturer"),
        "manufacturer_model_name": _read_text(dataset, "ManufacturerModelName"),
    }


def _read_text(dataset: Dataset, keyword: str) -> str | None:
    value: Any = dataset.get(keyword)
    text = str(value).strip(" \0") if isinstance(value, str) else ""
    return text[:64] or None


def _read_uid(dataset: Dataset, keyword: str) -> str | None:
    """Digits and dots only: a broken writer's free text in a UID field might name somebody."""
    text = _read_text(dataset, keyword)
    return text if text is not None and re.fullmatch(r"[0-9.]{1,64}", text) else None


_DATETIME = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)(?:(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?)?)?"
    r"(?P<offset>[+-]\d{4})?"
)


def _read_datetime(dataset: Dataset) -> datetime | None:
    """ContentDate + ContentTime, else AcquisitionDateTime, in UTC; a time without any offset is taken for UTC."""
    day, time = _read_text(dataset, "ContentDate"), _read_text(dataset, "ContentTime")
    text = (day + (time or "")) if day else _read_text(dataset, "AcquisitionDateTime")
    match = _DATETIME.fullmatch((text or "").replace(":", ""))
    if match is None:
        return None
    parts = {name: int(match[name] or 0) for name in ("year", "month", "day", "hour", "minute")}
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", match["offset"] or _read_text(dataset, "TimezoneOffsetFromUTC") or "+0000")
    try:
        minutes = int(offset[1] + "1") * (int(offset[2]) * 60 + int(offset[3])) if offset else 0
        local = datetime(
            **parts,
            second=min(int(match["second"] or 0), 59),  # 60 is a leap second
            microsecond=int((match["fraction"] or "0").ljust(6, "0")),
            tzinfo=timezone(timedelta(minutes=minutes)),
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
