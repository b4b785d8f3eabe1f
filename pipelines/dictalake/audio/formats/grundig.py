"""Grundig DSS (``\\x06dss``, CELP at 12 kHz) through PyPI's grundig-dss, which neither libsndfile nor FFmpeg can read.

Its frames are taken before its own resampling to 16 kHz: ours is faster, and the same for all formats.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dictalake.audio.formats.limits import check_length, check_not_empty
from dictalake.audio.formats.reader import DecodeSession
from dictalake.errors import CorruptAudio
from dictalake.records import AudioFormat, DecodedAudio

_RATE_HZ = 12_000
_BLOCK_BYTES = 512
_FRAME_SAMPLES = 288
_FULL_SCALE = 32_768.0


def decode_grundig(data: bytes, session: DecodeSession) -> DecodedAudio:
    """One channel at 12 kHz, as ``session.consume`` keeps it. Raises CorruptAudio, NoAudio or TooLong."""
    from grundig import grundig_dss

    audio = data[data[0] * _BLOCK_BYTES :]
    announced = sum(audio[at + 2] for at in range(0, len(audio) - _BLOCK_BYTES + 1, _BLOCK_BYTES))
    check_length(session.recording_id, announced * _FRAME_SAMPLES, _RATE_HZ, session.limits)

    def blocks() -> Iterator[np.ndarray]:
        state = grundig_dss.CelpState()
        for bits, mode in grundig_dss.unpack_blocks(audio)[0]:
            yield np.array([grundig_dss.decode_frame(state, bits, mode)], dtype=np.float32) / _FULL_SCALE

    try:
        samples, frames = session.take(_RATE_HZ, blocks())
    except (LookupError, ArithmeticError, ValueError) as error:
        raise CorruptAudio(
            session.recording_id, f"it starts like a Grundig DSS dictation but cannot be decoded ({type(error).__name__})"
        ) from None
    check_not_empty(session.recording_id, frames)
    return DecodedAudio(samples, AudioFormat("grundig_dss", "grundig_sp", _RATE_HZ, 1))
