"""What passes from the acoustic model to fusion: the frames of a window, already sparse where no other window covers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from dictalake.config.sections import Decoding

_MARGIN = 0.5

Exclusive = TypeVar("Exclusive")
Exclusive_co = TypeVar("Exclusive_co", covariant=True)


@dataclass(frozen=True)
class PruneConfig:
    """What is kept of a frame, see ``sparsify_stretches``. Logs are natural; ``min_logp`` is above fusion's floor, -69."""

    min_logp: float
    collapse_blank: float
    blank_id: int

    @classmethod
    def below(cls, decoding: Decoding, blank_id: int) -> PruneConfig:
        """A little below what the decoder tries, so that float16 rounding cannot push a token over its threshold."""
        return cls(decoding.token_min_logp - _MARGIN, decoding.collapse_blank, blank_id)


@dataclass(frozen=True)
class Stretch:
    """``frames`` consecutive frames of a channel, sparse. Of each kept one: its index (int64), and how many tokens (int64) of
    ``token_ids`` (uint16) and ``logp`` (float16) are its. Whether the first and the last frame are sure blanks decides what is
    collapsed where stretches meet."""

    frames: int
    vocabulary_size: int
    frame_index: np.ndarray
    counts: np.ndarray
    token_ids: np.ndarray
    logp: np.ndarray
    begins_blank: bool = False
    ends_blank: bool = False


@dataclass(frozen=True)
class WindowOutput(Generic[Exclusive_co]):
    """One window's frames: log-probabilities float32 ``(frames, vocabulary)`` of those ``before``, which an earlier window
    covers too, and of those ``after``, which a later one covers; between them the ``exclusive`` frames."""

    before: np.ndarray
    exclusive: Exclusive_co
    after: np.ndarray
