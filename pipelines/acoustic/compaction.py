"""Dense log-probabilities → sparse emissions: the form in which they travel from the GPU to the decoders.

A trained CTC model is sure of itself most of the time: of 512 log-probabilities a frame, one or two matter, and long
runs of frames are nothing but blank. Keeping what a decoder may use shrinks a frame from 2 kB to a few bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipelines.records import Emissions

_MOST_TOKENS = np.iinfo(np.uint16).max + 1


def compact(log_probs: np.ndarray, min_logp: float, collapse_blank: float, blank_id: int) -> Emissions:
    """One matrix of natural-log probabilities ``(frames, vocabulary)`` → Emissions; see ``compact_stretches``."""
    return compact_stretches([log_probs], min_logp, collapse_blank, blank_id)


def compact_stretches(stretches: Iterable[np.ndarray], min_logp: float, collapse_blank: float, blank_id: int) -> Emissions:
    """Natural-log probabilities, float and normalised, in stretches ``(frames, vocabulary)`` one after the other → Emissions
    of that channel.

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
    frames = vocabulary_size = 0
    follows_blank = False
    frame_index, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    token_ids, logps = [np.empty(0, np.uint16)], [np.empty(0, np.float16)]
    for log_probs in stretches:
        _check(log_probs)
        vocabulary_size = log_probs.shape[1]
        sure = np.exp(log_probs[:, blank_id].astype(np.float64)) > collapse_blank
        kept_frames = _first_of_runs(sure, follows_blank)
        follows_blank = bool(sure[-1]) if len(sure) else follows_blank
        matrix = log_probs.take(kept_frames, axis=0).astype(np.float32, copy=False)
        keep = matrix >= min_logp
        if len(matrix):
            keep[np.arange(len(matrix)), matrix.argmax(axis=1)] = True
        rows, tokens = np.divmod(np.flatnonzero(keep), vocabulary_size)  # a tenth of np.nonzero's time
        logp = matrix[rows, tokens]
        order = np.lexsort((tokens, -logp, rows))
        frame_index.append(kept_frames + frames)
        counts.append(np.bincount(rows, minlength=len(kept_frames)))
        token_ids.append(tokens[order].astype(np.uint16))
        logps.append(logp[order].astype(np.float16))
        frames += len(log_probs)
    return Emissions(
        frames=frames,
        vocabulary_size=vocabulary_size,
        frame_index=np.concatenate(frame_index).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32),
        token_ids=np.concatenate(token_ids),
        logp=np.concatenate(logps),
    )


def _check(log_probs: np.ndarray) -> None:
    if log_probs.ndim != 2:
        raise ValueError(f"log-probabilities must have the shape (frames, vocabulary), not {log_probs.shape}")
    if log_probs.shape[1] > _MOST_TOKENS:
        raise ValueError(f"a vocabulary of {log_probs.shape[1]} does not fit uint16; at most {_MOST_TOKENS}")
    if np.isnan(log_probs).any():
        raise ValueError("the log-probabilities hold NaN")


def _first_of_runs(sure: np.ndarray, follows_blank: bool) -> np.ndarray:
    """Indices of the frames to keep: all but the second and later ones of each run of sure blanks; ``follows_blank`` says
    whether the frame before the first was one."""
    before = np.concatenate([[follows_blank], sure[:-1]]) if len(sure) else sure
    return np.flatnonzero(~(sure & before))
