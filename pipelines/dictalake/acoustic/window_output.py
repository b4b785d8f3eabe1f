"""The acoustic model's output for one window, as fusion takes it: already sparse where no other window covers it."""

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
    """What ``sparsify_stretches`` keeps of a frame. Logs are natural; ``min_logp`` is above fusion's floor, -69."""

    min_logp: float
    collapse_blank: float
    blank_id: int

    @classmethod
    def below(cls, decoding: Decoding, blank_id: int) -> PruneConfig:
        """Prunes a little below the decoder's threshold, so that float16 rounding cannot move a token across it."""
        return cls(decoding.token_min_logp - _MARGIN, decoding.collapse_blank, blank_id)


@dataclass(frozen=True)
class Stretch:
    """``frames`` consecutive frames of a channel, sparse.

    Each kept frame has its index (int64) and its number of tokens (int64), whose ids are in ``token_ids`` (uint16) and whose
    log-probabilities are in ``logp`` (float16). Where stretches meet, blanks are collapsed if the last frame of one and the
    first frame of the next are sure blanks.
    """

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
    """One window's frames. An earlier window covers those ``before`` too, and a later one those ``after``: both are
    log-probabilities, float32 ``(frames, vocabulary)``. Between them are the ``exclusive`` frames."""

    before: np.ndarray
    exclusive: Exclusive_co
    after: np.ndarray
