"""How loud a recording is, whether it is clipped, and how far it is off zero: signs of a bad microphone or cable."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_FULL_SCALE = 32_767
_PIECE = 2**20  # samples; temporary copies stay small, however long the recording is


class Level(NamedTuple):
    """Over all channels: the RMS in dB below full scale (None for digital silence), the share of samples at full scale, and
    the mean of the channel that is furthest off zero, as a share of full scale."""

    level_dbfs: float | None
    clipped_ratio: float
    dc_offset: float


def measure_level(waveforms: np.ndarray) -> Level:
    """The level of int16 ``(channels, samples)`` with at least one sample."""
    channels, samples = waveforms.shape
    power, clipped = 0.0, 0
    sums = np.zeros(channels)
    for start in range(0, samples, _PIECE):
        piece = waveforms[:, start : start + _PIECE].astype(np.int32)
        power += float(np.square(piece, dtype=np.float64).sum())
        clipped += int((np.abs(piece) >= _FULL_SCALE).sum())
        sums += piece.sum(axis=1)
    mean_power = power / (channels * samples) / 32_768**2
    offsets = sums / samples / 32_768
    return Level(
        level_dbfs=10 * float(np.log10(mean_power)) if mean_power > 0 else None,
        clipped_ratio=clipped / (channels * samples),
        dc_offset=float(offsets[np.abs(offsets).argmax()]),
    )
