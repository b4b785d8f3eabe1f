"""What the readers of all containers share: samples come in blocks, are checked, and go on before the next block is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dictalake.audio.formats.limits import check_length
from dictalake.config.sections import Limits
from dictalake.errors import CorruptAudio

# (rate in Hz, float32 blocks ``(channels, frames)``, or int16 ones at 16 kHz) → what is to be kept of them, ``(channels, …)``
Consume = Callable[[int, Iterable[np.ndarray]], np.ndarray]
_BLOCK_FRAMES = 2**16


def join_blocks(rate_hz: int, blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Keeps all samples as they are: float32 ``(channels, frames)``."""
    kept = [to_float(block) for block in blocks]
    return np.concatenate(kept, axis=1) if kept else np.zeros((0, 0), dtype=np.float32)


def to_float(block: np.ndarray) -> np.ndarray:
    """int16 as float32 in [-1, 1); float32 as it is."""
    return np.multiply(block, np.float32(1 / 32_768), dtype=np.float32) if block.dtype == np.int16 else block


@dataclass(frozen=True)
class DicomOptions:
    """``time_zone`` is where times without an offset are of; ``patient_fields`` are keywords whose values are wanted."""

    time_zone: str = "UTC"
    patient_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodeSession:
    """The decoding of one recording: its limits, and what takes its samples.

    ``consume`` may be called twice: where one library gives up in the middle, another begins anew.
    """

    recording_id: str
    limits: Limits
    consume: Consume = join_blocks
    dicom: DicomOptions = DicomOptions()

    def take(self, rate_hz: int, blocks: Iterable[np.ndarray], before_s: float = 0.0) -> tuple[np.ndarray, int]:
        """What ``consume`` makes of ``blocks`` (float32 ``(channels, frames)``, any sizes), and how many frames there were.

        ``before_s`` is the length of the parts of the recording that were taken before. Raises TooLong as soon as they are
        more than allowed, CorruptAudio for samples that are no numbers.
        """
        frames, before = 0, round(before_s * rate_hz)

        def checked() -> Iterator[np.ndarray]:
            nonlocal frames
            for block in _coalesce(blocks):
                frames += block.shape[1]
                check_length(self.recording_id, before + frames, rate_hz, self.limits)
                yield self._check_finite(block)

        return self.consume(rate_hz, checked()), frames

    def _check_finite(self, samples: np.ndarray) -> np.ndarray:
        """Refuses NaN and infinity: only a broken writer or a damaged file makes them, and putting silence in their place would
        hide that something is lost. Float files may legally go beyond full scale: clipped, as any player does."""
        if samples.dtype == np.int16 or (samples.size and samples.min() >= -1.0 and samples.max() <= 1.0):
            return samples
        bad = samples.size - int(np.count_nonzero(np.isfinite(samples)))
        if bad:
            raise CorruptAudio(
                self.recording_id, f"{bad} of {samples.size} samples are not finite numbers; export the recording again"
            )
        return np.clip(samples, -1.0, 1.0)


def _coalesce(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks of at least ``_BLOCK_FRAMES`` but for the last: codecs give a few hundred frames at once."""
    waiting: list[np.ndarray] = []
    frames = 0
    for block in blocks:
        waiting.append(block)
        frames += block.shape[1]
        if frames >= _BLOCK_FRAMES:
            yield np.concatenate(waiting, axis=1) if len(waiting) > 1 else block
            waiting, frames = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1)
