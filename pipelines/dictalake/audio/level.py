"""How loud a recording is, whether it is clipped, and how far it is off zero: signs of a bad microphone or cable."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_FULL_SCALE = 32_767
_PIECE = 2**20  # samples whose squares are added up before they are added to the rest
_IN_CACHE = 2**15  # samples that are copied at once, so that the copy stays in the processor


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
    buffer = np.empty(min(samples, _IN_CACHE))
    ones = np.ones_like(buffer)
    for start in range(0, samples, _PIECE):
        piece_power = 0.0  # whole numbers, exact in float64 in any order
        for channel, waveform in enumerate(waveforms[:, start : start + _PIECE]):
            for at in range(0, len(waveform), _IN_CACHE):
                part = waveform[at : at + _IN_CACHE]
                values = buffer[: len(part)]
                np.copyto(values, part)
                piece_power += float(values @ values)
                sums[channel] += float(values @ ones[: len(part)])
                if part.max() >= _FULL_SCALE or part.min() <= -_FULL_SCALE:
                    clipped += int(np.count_nonzero((part >= _FULL_SCALE) | (part <= -_FULL_SCALE)))
        power += piece_power
    mean_power = power / (channels * samples) / 32_768**2
    offsets = sums / samples / 32_768
    return Level(
        level_dbfs=10 * float(np.log10(mean_power)) if mean_power > 0 else None,
        clipped_ratio=clipped / (channels * samples),
        dc_offset=float(offsets[np.abs(offsets).argmax()]),
    )
