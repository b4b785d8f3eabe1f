"""Converts stored samples to the input of the models: int16 at 16 kHz, channel by channel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import soxr

from dictalake.records import SAMPLE_RATE_HZ


def resample_blocks(rate_hz: int, blocks: Iterable[np.ndarray]) -> np.ndarray:
    """float32 blocks ``(channels, frames)`` in [-1, 1] at ``rate_hz`` → int16 ``(channels, round(frames × 16000 / rate_hz))``.

    Blocks at 16 kHz may be int16 already.

    soxr's high-quality filter takes block after block, so hours of float32 are never in memory at once. The result does not
    depend on how the blocks are cut. Samples at 16 kHz pass unfiltered, so 16-bit PCM comes back bit for bit. Values beyond
    full scale are clipped to the int16 range and do not wrap: a filter overshoots on clipped speech.
    """
    chunks: list[np.ndarray] = []
    stream: soxr.ResampleStream | None = None
    channels = frames = 0
    for block in blocks:
        channels, frames = len(block), frames + block.shape[1]
        if rate_hz == SAMPLE_RATE_HZ:
            chunks.append(_to_int16(block))
            continue
        if stream is None:
            stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, channels, dtype="float32", quality="HQ")
        chunks.append(_to_int16(stream.resample_chunk(np.ascontiguousarray(block.T)).T))
    if stream is not None:
        chunks.append(_to_int16(stream.resample_chunk(np.zeros((0, channels), dtype=np.float32), last=True).T))
    length = (2 * frames * SAMPLE_RATE_HZ + rate_hz) // (2 * rate_hz)
    return _join(chunks, channels, length)


def _join(chunks: list[np.ndarray], channels: int, length: int) -> np.ndarray:
    """Frees each chunk as soon as it is copied. The filter may give one sample more or fewer than ``length``."""
    if len(chunks) == 1 and chunks[0].shape[1] == length and chunks[0].flags.c_contiguous:
        return chunks[0]
    joined = np.empty((channels, length), dtype=np.int16)
    at = 0
    chunks.reverse()
    while chunks:
        chunk = chunks.pop()[:, : length - at]
        joined[:, at : at + chunk.shape[1]] = chunk
        at += chunk.shape[1]
    joined[:, at:] = 0
    return joined


def _to_int16(samples: np.ndarray) -> np.ndarray:
    """[-1, 1) → [-32768, 32767]: the inverse of how 16-bit PCM is read. What is int16 already stays."""
    if samples.dtype == np.int16:
        return samples
    scaled = samples * np.float32(32768)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)
