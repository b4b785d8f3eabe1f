"""Dense log-probabilities → sparse emissions: the form in which they travel from the GPU to the decoders.

A trained CTC model is sure of itself most of the time: of 512 log-probabilities a frame, one or two matter, and long
runs of frames are nothing but blank. Keeping what a decoder may use shrinks a frame from 2 kB to a few bytes.
"""

from __future__ import annotations

import numpy as np

from pipelines.records import Emissions

_MOST_TOKENS = np.iinfo(np.uint16).max + 1


def compact(log_probs: np.ndarray, min_logp: float, collapse_blank: float, blank_id: int) -> Emissions:
    """Natural-log probabilities ``(frames, vocabulary)``, float and normalised, → Emissions of that channel.

    Kept of each frame: the tokens with a log-probability of at least ``min_logp``, and always the most likely one. They
    stand in falling order of probability (the lower id first between equals), so that the first is the greedy choice
    even where float16 makes two of them equal. A run of consecutive frames with p(blank) > ``collapse_blank`` becomes
    its first frame; at ``collapse_blank`` = 1 nothing is collapsed. Above 0.5 the blank is the greedy choice of the
    whole run, so the greedy text does not change.

    ``dense()`` gives back each kept log-probability within ``2⁻¹¹ × |logp|`` (float16: 0.0025 at -5). A pruned token gets
    its share of the frame's leftover probability: at most ``exp(min_logp)``, plus ``2⁻¹⁰ × |min_logp|`` of rounding shared
    by all pruned tokens of the frame.

    A beam search compares with its own ``token_min_logp``: prune below that, by a margin of 0.5 or more, so that
    rounding cannot carry a token over its threshold.

    Raises ValueError for a matrix that is not two-dimensional, holds NaN, or has over 65,536 columns.
    """
    if log_probs.ndim != 2:
        raise ValueError(f"log-probabilities must have the shape (frames, vocabulary), not {log_probs.shape}")
    frames, vocabulary_size = log_probs.shape
    if vocabulary_size > _MOST_TOKENS:
        raise ValueError(f"a vocabulary of {vocabulary_size} does not fit uint16; at most {_MOST_TOKENS}")
    if np.isnan(log_probs).any():
        raise ValueError("the log-probabilities hold NaN")
    kept_frames = _first_of_blank_runs(log_probs[:, blank_id], collapse_blank)
    matrix = log_probs[kept_frames].astype(np.float32, copy=False)
    keep = matrix >= min_logp
    if len(matrix):
        keep[np.arange(len(matrix)), matrix.argmax(axis=1)] = True
    rows, token_ids = np.nonzero(keep)
    logp = matrix[rows, token_ids]
    order = np.lexsort((token_ids, -logp, rows))
    offsets = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int32)
    return Emissions(
        frames=frames,
        vocabulary_size=vocabulary_size,
        frame_index=kept_frames.astype(np.int32),
        offsets=offsets,
        token_ids=token_ids[order].astype(np.uint16),
        logp=logp[order].astype(np.float16),
    )


def _first_of_blank_runs(blank_logp: np.ndarray, collapse_blank: float) -> np.ndarray:
    """Indices of the frames to keep: all but the second and later ones of each run of sure blanks."""
    sure = np.exp(blank_logp.astype(np.float64)) > collapse_blank
    follows_sure = np.concatenate([[False], sure[:-1]]) if len(sure) else sure
    return np.flatnonzero(~(sure & follows_sure))
