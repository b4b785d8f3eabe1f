"""What a decoder's process may answer. It has read untrusted bytes, so its answer is untrusted too.

Whatever a later stage or a reader of the lake relies on is checked here: keys, types, finite numbers, lengths, words. An
answer that no decoder gives costs the recording its row, not the block. What is long is looked at by hand and up to the first
fault: pydantic would make an error of each.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dictalake.errors import DecoderCrashed
from dictalake.records import REPAIR_WORDS, SAMPLE_RATE_HZ
from dictalake.sandbox.messages import clean_text

_MOST_CHARACTERS = 256
_MOST_VALUES = 500  # beside the intervals of speech
_ROUNDING_S = 0.001
Word = Annotated[str, Field(max_length=_MOST_CHARACTERS), AfterValidator(clean_text)]
Untouched = Annotated[str, Field(max_length=_MOST_CHARACTERS)]  # it is hashed as it stands
Seconds = Annotated[float, Field(ge=0)]


def _is_repair(word: str) -> str:
    if word not in REPAIR_WORDS:
        raise ValueError("no such repair")
    return word


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Format(_Strict):
    container: Word
    codec: Word
    sample_rate_hz: Annotated[int, Field(ge=0, lt=2**31)]
    channels: Annotated[int, Field(ge=0, le=64)]
    bits_per_sample: Annotated[int, Field(ge=0, le=64)] | None
    tracks: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=64)] | None


class _Quality(_Strict):
    duration_s: Seconds
    level_dbfs: float | None
    clipped_ratio: Annotated[float, Field(ge=0, le=1)]
    dc_offset: Annotated[float, Field(ge=-1, le=1)]
    speech_s: Seconds | None
    lost_s: Seconds | None
    repairs: Annotated[list[Annotated[str, AfterValidator(_is_repair)]], Field(max_length=64)]


class _Answer(_Strict):
    format: _Format
    dicom: Annotated[dict[Word, Word], Field(max_length=32)] | None
    patient: Annotated[dict[Untouched, Untouched], Field(max_length=16)]
    content_datetime: Untouched | None
    quality: _Quality


def check_answer(
    answer: dict[str, Any], waveforms: np.ndarray, recording_id: str, patient_fields: list[str], most_samples: float
) -> dict[str, Any]:
    """The fields of LoadedAudio but for its waveforms. Raises DecoderCrashed where a decoder does not answer so.

    ``most_samples`` are those of all channels together.
    """
    rest = dict(answer)
    speech = rest.pop("speech", None)
    channels, duration_s = len(waveforms), waveforms.shape[1] / SAMPLE_RATE_HZ
    if not channels or waveforms.size > most_samples or not _is_short(rest) or not _is_speech(speech, channels, duration_s):
        raise _refuse(recording_id)
    try:
        known = _Answer.model_validate(rest).model_dump()
        when = known["content_datetime"]
        known["content_datetime"] = None if when is None else datetime.fromisoformat(when)
    except (ValidationError, ValueError):  # its message would quote the answer
        raise _refuse(recording_id) from None
    quality = known["quality"]
    if abs(quality["duration_s"] - duration_s) > _ROUNDING_S or (quality["speech_s"] or 0) > duration_s + _ROUNDING_S:
        raise _refuse(recording_id)
    if not known["patient"].keys() <= set(patient_fields):
        raise _refuse(recording_id)
    return {**known, "speech": speech}


def _is_short(answer: dict[str, Any]) -> bool:
    """Whether it holds few values, however they are nested."""
    left = _MOST_VALUES
    waiting: list[dict[str, Any] | list[Any]] = [answer]
    while waiting:
        one = waiting.pop()
        left -= len(one)
        if left < 0:
            return False
        waiting += [value for value in (one.values() if isinstance(one, dict) else one) if isinstance(value, dict | list)]
    return True


def _is_speech(speech: object, channels: int, duration_s: float) -> bool:
    """Whether it has ``(start, end)`` for each interval of each channel: in order, within the sound."""
    if not isinstance(speech, list) or len(speech) != channels:
        return False
    for intervals in speech:
        if not isinstance(intervals, list):
            return False
        before = 0.0
        for one in intervals:
            if not isinstance(one, list) or len(one) != 2 or not all(type(time) in (int, float) for time in one):
                return False
            start, end = one
            if not (before <= start <= end <= duration_s + _ROUNDING_S and math.isfinite(end)):
                return False
            before = end
    return True


def _refuse(recording_id: str) -> DecoderCrashed:
    return DecoderCrashed(
        recording_id,
        "its decoder answered as no decoder does; handle this file with caution, or leave it out",
    )
