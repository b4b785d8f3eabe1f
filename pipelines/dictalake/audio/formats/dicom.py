"""DICOM audio waveforms to samples (PS3.3 sections A.34.2, A.34.10 and C.10.9).

Storage classes: Basic Voice Audio ``1.2.840.10008.5.1.4.1.1.9.4.1`` and General Audio ``…9.4.2``; any other class with a
waveform (ECG, …) is refused. Transfer syntaxes: implicit, explicit little-endian, deflated, explicit big-endian.

Where an object without a waveform carries an audio file, in Encapsulated Document or in a private element, that is read.
Beside the sound, only an allow-list of attributes leaves this module; pydicom's warnings are off: they print values.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pydicom
import pydicom.config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import PersonName

from dictalake.audio.formats.account import add_accounts
from dictalake.audio.formats.dicom_waveform import Group, read_group, take_groups
from dictalake.audio.formats.reader import DecodeSession
from dictalake.audio.formats.sniff import name_container, sniff
from dictalake.errors import CorruptAudio, NoAudio, NotAudio, TooLarge
from dictalake.records import AudioFormat, DecodedAudio

# For the whole process, not around each call: a filter that one thread restores would let another thread's warning out.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")

AUDIO_CLASSES = ("1.2.840.10008.5.1.4.1.1.9.4.1", "1.2.840.10008.5.1.4.1.1.9.4.2")
OpenFile = Callable[[bytes, DecodeSession], DecodedAudio]
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


def decode_dicom(data: bytes, session: DecodeSession, open_file: OpenFile) -> DecodedAudio:
    """The sound of a DICOM object, as ``session.consume`` keeps it; an audio file inside it goes through ``open_file``.

    Raises NotAudio (no DICOM, or a waveform that is not audio), NoAudio (no waveform, no samples), UnsupportedCodec, TooLong,
    TooManyChannels, TooLarge or CorruptAudio, whose details name tags and items, never values of patients.
    """
    try:
        dataset = _read(data, session)
        attributes = _read_attributes(dataset, session.dicom.time_zone)
        patient = {keyword: text for keyword in session.dicom.patient_fields if (text := _read_text(dataset, keyword))}
        groups: list[Group] = []
        if "WaveformSequence" in dataset:
            _check_class(dataset, session.recording_id)
            groups = [read_group(dataset, index, session) for index in range(len(dataset.WaveformSequence))]
        else:
            inside = _find_audio_file(data, dataset, session.recording_id)
    except _PARSE_ERRORS as error:
        detail = f"the DICOM object cannot be parsed ({type(error).__name__}); export it again"
        raise CorruptAudio(session.recording_id, detail) from None
    if "WaveformSequence" not in dataset:
        return replace(open_file(inside, session), dicom=attributes, patient=patient)
    if not groups:
        raise NoAudio(session.recording_id, "(5400,0100) WaveformSequence of the DICOM object has no item")
    samples, channels = take_groups(groups, session)
    stored = AudioFormat("dicom", groups[0].codec, groups[0].sample_rate_hz, channels, groups[0].bits)
    return DecodedAudio(samples, stored, attributes, patient, add_accounts(group.account for group in groups))


def _read(data: bytes, session: DecodeSession) -> Dataset:
    _refuse_bomb(data, session)
    wanted = [*_UIDS, *_TEXTS, *_TIMES, "WaveformSequence", "EncapsulatedDocument", "EncapsulatedDocumentLength"]
    wanted += session.dicom.patient_fields
    return pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=wanted)


def _refuse_bomb(data: bytes, session: DecodeSession) -> None:
    """Raises TooLarge where a deflated object inflates to more than decoding may take: pydicom would inflate it all."""
    file = io.BytesIO(data)
    file.seek(132 if data[128:132] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left, rest, step = int(session.limits.object_mb * 1e6), file.read(), 2**24
    while rest and left > 0:
        left -= len(inflater.decompress(rest, step))
        rest = inflater.unconsumed_tail
    if left <= 0:
        raise TooLarge(
            session.recording_id,
            f"the deflated DICOM object inflates to more than the {session.limits.object_mb:g} MB of limits.object_mb",
        )


def _check_class(dataset: Dataset, recording_id: str) -> None:
    sop_class = _read_uid(dataset, "SOPClassUID")
    if sop_class is not None and sop_class not in AUDIO_CLASSES:
        name = UID(sop_class).name  # the UID itself where pydicom knows no name
        raise NotAudio(recording_id, f"the waveform is not sound: {name}; audio is {' or '.join(AUDIO_CLASSES)}")


def _find_audio_file(data: bytes, dataset: Dataset, recording_id: str) -> bytes:
    """The audio file that an object without a waveform carries: (0042,0011) Encapsulated Document, else a private element.

    Of several the longest. Raises NoAudio where there is none.
    """
    document = dataset.get("EncapsulatedDocument")
    if isinstance(document, bytes) and name_container(sniff(document)):
        length = dataset.get("EncapsulatedDocumentLength")
        return document[:length] if isinstance(length, int) and length > 0 else document
    whole = pydicom.dcmread(io.BytesIO(data), force=True)
    found = [value for value in _private_bytes(whole) if name_container(sniff(value))]
    if found:
        return max(found, key=len)
    if _read_uid(dataset, "SOPClassUID") is None and data[128:132] != b"DICM":
        raise NotAudio(recording_id, "the bytes are of no audio format that is known here")
    raise NoAudio(
        recording_id, "the DICOM object has no (5400,0100) WaveformSequence and carries no audio file, so it holds no sound"
    )


def _private_bytes(dataset: Dataset) -> Iterator[bytes]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _private_bytes(item)
        elif element.tag.is_private and isinstance(element.value, bytes):
            yield element.value


def _read_attributes(dataset: Dataset, time_zone: str) -> dict[str, str | datetime | None]:
    """The allow-list in snake_case; absent, empty and malformed ones are None."""
    return {
        "sop_class_uid": _read_uid(dataset, "SOPClassUID"),
        "sop_instance_uid": _read_uid(dataset, "SOPInstanceUID"),
        "series_instance_uid": _read_uid(dataset, "SeriesInstanceUID"),
        "study_instance_uid": _read_uid(dataset, "StudyInstanceUID"),
        "content_datetime": _read_datetime(dataset, time_zone),
        "modality": _read_text(dataset, "Modality"),
        "manufacturer": _read_text(dataset, "Manufacturer"),
        "manufacturer_model_name": _read_text(dataset, "ManufacturerModelName"),
    }


def _read_text(dataset: Dataset, keyword: str) -> str | None:
    value: Any = dataset.get(keyword)
    text = str(value).strip(" \0") if isinstance(value, (str, PersonName)) else ""
    return text[:64] or None


def _read_uid(dataset: Dataset, keyword: str) -> str | None:
    """Digits and dots only: a broken writer's free text in a UID field might name somebody."""
    text = _read_text(dataset, keyword)
    return text if text is not None and re.fullmatch(r"[0-9.]{1,64}", text) else None


_DATETIME = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)(?:(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?)?)?"
    r"(?P<offset>[+-]\d{4})?"
)


def _read_datetime(dataset: Dataset, time_zone: str) -> datetime | None:
    """ContentDate + ContentTime, else AcquisitionDateTime, in UTC; a time without any offset is of ``time_zone``."""
    day, time = _read_text(dataset, "ContentDate"), _read_text(dataset, "ContentTime")
    text = (day + (time or "")) if day else _read_text(dataset, "AcquisitionDateTime")
    match = _DATETIME.fullmatch((text or "").replace(":", ""))
    if match is None:
        return None
    parts = {name: int(match[name] or 0) for name in ("year", "month", "day", "hour", "minute")}
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", match["offset"] or _read_text(dataset, "TimezoneOffsetFromUTC") or "")
    try:
        zone: tzinfo = ZoneInfo(time_zone)
        if offset:
            zone = timezone(timedelta(minutes=int(offset[1] + "1") * (int(offset[2]) * 60 + int(offset[3]))))
        local = datetime(
            **parts,
            second=min(int(match["second"] or 0), 59),  # 60 is a leap second
            microsecond=int((match["fraction"] or "0").ljust(6, "0")),
            tzinfo=zone,
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
