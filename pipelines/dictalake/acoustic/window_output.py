"""What passes from the acoustic model to fusion and compaction: a window's frames, as far as possible sparse already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from dictalake.config.sections import Decoding

_MARGIN = 0.5

Alone = TypeVar("Alone")
Alone_co = TypeVar("Alone_co", covariant=True)


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
class Heard(Generic[Alone_co]):
    """One window: log-probabilities float32 ``(frames, vocabulary)`` of its first frames, which an earlier window hears too,
    and of those from which on a later one does; between them what it hears alone."""

    before: np.ndarray
    alone: Alone_co
    after: np.ndarray
