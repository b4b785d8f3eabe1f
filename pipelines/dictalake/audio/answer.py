"""What a decoder's process may answer. It has read untrusted bytes, so its answer is untrusted too.

Whatever a later stage or a reader of the lake relies on is checked here: keys, types, finite numbers, lengths, words. An
answer that no decoder gives costs the recording its row, not the block.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dictalake.errors import DecoderCrashed
from dictalake.records import REPAIR_WORDS
from dictalake.sandbox.messages import clean_text

_MOST_CHARACTERS = 256
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
    clipped_ratio: float
    dc_offset: float
    speech_s: Seconds | None
    lost_s: Seconds | None
    repairs: list[Annotated[str, AfterValidator(_is_repair)]]


class _Answer(_Strict):
    format: _Format
    dicom: Annotated[dict[Word, Word], Field(max_length=32)] | None
    patient: Annotated[dict[Untouched, Untouched], Field(max_length=16)]
    content_datetime: Untouched | None
    quality: _Quality
    speech: list[list[Annotated[list[float], Field(min_length=2, max_length=2)]]]


def check_answer(
    answer: dict[str, Any], waveforms: np.ndarray, recording_id: str, patient_fields: list[str], most_samples: float
) -> dict[str, Any]:
    """The fields of LoadedAudio but for its waveforms. Raises DecoderCrashed where a decoder does not answer so.

    ``most_samples`` are those of all channels together.
    """
    try:
        known = _Answer.model_validate(answer).model_dump()
        when = known["content_datetime"]
        known["content_datetime"] = None if when is None else datetime.fromisoformat(when)
    except (ValidationError, ValueError):  # its message would quote the answer
        raise _refuse(recording_id) from None
    channels = len(waveforms)
    if not channels or waveforms.size > most_samples or len(known["speech"]) != channels:
        raise _refuse(recording_id)
    if not known["patient"].keys() <= set(patient_fields):
        raise _refuse(recording_id)
    return known


def _refuse(recording_id: str) -> DecoderCrashed:
    return DecoderCrashed(
        recording_id,
        "its decoder answered as no decoder does; handle this file with caution, or leave it out",
    )
