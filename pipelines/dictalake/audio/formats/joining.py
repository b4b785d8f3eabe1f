"""Blocks of several rates and channel counts → blocks of one: recordings that follow one another in one object differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

RatedBlock = tuple[int, np.ndarray]  # rate in Hz, float32 ``(channels, frames)``


class Widened(Exception):
    """A block has more channels, or a higher rate, than the first one had: begin again with these."""

    def __init__(self, rate_hz: int, channels: int) -> None:
        super().__init__(rate_hz, channels)
        self.rate_hz, self.channels = rate_hz, channels


def unify(blocks: Iterable[RatedBlock], rate_hz: int, channels: int) -> Iterator[np.ndarray]:
    """``blocks`` at ``rate_hz`` with ``channels``: further channels are silent where a part has fewer of them.

    Raises Widened for a block that does not fit.
    """
    stream: soxr.ResampleStream | None = None
    shape = (0, 0)
    for stored_hz, block in blocks:
        if stored_hz > rate_hz or len(block) > channels:
            raise Widened(max(stored_hz, rate_hz), max(len(block), channels))
        if stream is not None and shape != (stored_hz, len(block)):
            yield from _flush(stream, shape[1], channels)
            stream = None
        if stored_hz == rate_hz:
            yield _widen(block, channels)
            continue
        if stream is None:
            shape = (stored_hz, len(block))
            stream = soxr.ResampleStream(stored_hz, rate_hz, len(block), dtype="float32", quality="HQ")
        yield _widen(stream.resample_chunk(np.ascontiguousarray(block.T)).T, channels)
    if stream is not None:
        yield from _flush(stream, shape[1], channels)


def _flush(stream: soxr.ResampleStream, stored: int, channels: int) -> Iterator[np.ndarray]:
    yield _widen(stream.resample_chunk(np.zeros((0, stored), dtype=np.float32), last=True).T, channels)


def _widen(block: np.ndarray, channels: int) -> np.ndarray:
    missing = channels - len(block)
    return np.pad(block, ((0, missing), (0, 0))) if missing else block
