"""Stored samples to what the models hear: int16 at 16 kHz, channel by channel."""

from __future__ import annotations

import librosa
import numpy as np

from pipelines.records import SAMPLE_RATE_HZ


def resample_channels(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """float32 ``(channels, frames)`` in [-1, 1] at ``rate_hz`` to int16 ``(channels, round(frames × 16000 / rate_hz))``.

    soxr's high quality filter; at 16 kHz the samples pass unfiltered, so that 16-bit PCM comes back bit for bit. Beyond full
    scale (a filter overshoots on clipped speech) values stop at the int16 range, they do not wrap.
    """
    channels, frames = samples.shape
    length = (2 * frames * SAMPLE_RATE_HZ + rate_hz) // (2 * rate_hz)
    resampled = np.zeros((channels, length), dtype=np.int16)
    if length == 0:
        return resampled
    for index in range(channels):  # one at a time: hours of float32 in two rates are gigabytes
        resampled[index] = _to_int16(_resample(np.ascontiguousarray(samples[index]), rate_hz, length))
    return resampled


def _resample(channel: np.ndarray, rate_hz: int, length: int) -> np.ndarray:
    if rate_hz == SAMPLE_RATE_HZ:
        return channel
    resampled = librosa.resample(channel, orig_sr=rate_hz, target_sr=SAMPLE_RATE_HZ, res_type="soxr_hq", fix=False)
    return np.asarray(librosa.util.fix_length(resampled, size=length))


def _to_int16(samples: np.ndarray) -> np.ndarray:
    """[-1, 1) is [-32768, 32767]: the inverse of how 16-bit PCM was read."""
    return np.asarray(np.clip(np.rint(samples * np.float32(32768)), -32768, 32767), dtype=np.int16)
