"""Dense log-probabilities → sparse emissions: the form in which they travel from the GPU to the decoders.

A trained CTC model is mostly sure: one or two of the 512 log-probabilities of a frame matter, and long runs of frames are
only blank. Keeping what a decoder may use shrinks a frame from 2 kB to a few bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from dictalake.acoustic.window_output import PruneConfig, Stretch
from dictalake.records import Emissions

_MOST_TOKENS = np.iinfo(np.uint16).max + 1


def sparsify(log_probs: np.ndarray, min_logp: float, collapse_blank: float, blank_id: int) -> Emissions:
    """One matrix of natural-log probabilities ``(frames, vocabulary)`` → Emissions; see ``sparsify_stretches``."""
    return sparsify_stretches([log_probs], PruneConfig(min_logp, collapse_blank, blank_id))


def sparsify_stretches(stretches: Iterable[np.ndarray | Stretch], pruning: PruneConfig) -> Emissions:
    """Consecutive stretches of frames → Emissions of that channel. A stretch is either normalised natural-log probabilities,
    float ``(frames, vocabulary)``, or already made sparse by the same ``pruning``.

    A frame keeps its tokens with a log-probability of at least ``min_logp``, and always the most likely one. They are in
    falling order of probability (of equals the lower id first), so the first is the greedy choice even if float16 makes two
    of them equal. A run of consecutive frames with p(blank) > ``collapse_blank`` becomes its first frame; at
    ``collapse_blank`` = 1 nothing is collapsed. Above 0.5 the blank is the greedy choice of the whole run, so the greedy text
    does not change.

    ``dense()`` gives back each kept log-probability within ``2⁻¹¹ × |logp|`` (float16: 0.0025 at -5). A pruned token gets
    its share of the frame's leftover probability: at most ``exp(min_logp)``, plus ``2⁻¹⁰ × |min_logp|`` of rounding shared
    by all pruned tokens of the frame.

    A beam search compares with its own ``token_min_logp``. Prune below that by a margin of 0.5 or more, so that rounding
    cannot move a token across the threshold.

    Raises ValueError for a matrix that is not two-dimensional, holds NaN, or has over 65,536 columns.
    """
    frames = vocabulary_size = 0
    follows_blank = False
    frame_index, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    token_ids, logps = [np.empty(0, np.uint16)], [np.empty(0, np.float16)]
    for given in stretches:
        stretch = given if isinstance(given, Stretch) else _sparsify_one(given, pruning)
        vocabulary_size = stretch.vocabulary_size
        if not stretch.frames:
            continue
        repeated = int(follows_blank and stretch.begins_blank)  # its first frame continues a run of blanks
        first = int(stretch.counts[:repeated].sum())
        frame_index.append(stretch.frame_index[repeated:] + frames)
        counts.append(stretch.counts[repeated:])
        token_ids.append(stretch.token_ids[first:])
        logps.append(stretch.logp[first:])
        frames += stretch.frames
        follows_blank = stretch.ends_blank
    return Emissions(
        frames=frames,
        vocabulary_size=vocabulary_size,
        frame_index=np.concatenate(frame_index).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32),
        token_ids=np.concatenate(token_ids),
        logp=np.concatenate(logps),
    )


def least_sure(pruning: PruneConfig) -> float:
    """The log-probability of blank above which a frame is a sure blank."""
    return math.log(pruning.collapse_blank)


def require_tokens_fit(vocabulary_size: int) -> None:
    """Raises ValueError."""
    if vocabulary_size > _MOST_TOKENS:
        raise ValueError(f"a vocabulary of {vocabulary_size} does not fit uint16; at most {_MOST_TOKENS}")


def require_numbers(likeliest: np.ndarray) -> None:
    """Raises ValueError if the largest log-probability of a frame is NaN; it is NaN if any of them is."""
    if np.isnan(likeliest).any():
        raise ValueError("the log-probabilities hold NaN")


def arrange(
    frames: np.ndarray, tokens: np.ndarray, logp: np.ndarray, min_logp: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kept frames in order, the number of tokens of each, and these tokens and log-probabilities as a Stretch holds them.

    The tokens come in any order, each with its frame; a frame's most likely ones are among them even below ``min_logp``.
    """
    order = np.lexsort((tokens, -logp, frames))
    frames, tokens, logp = frames[order], tokens[order], logp[order]
    likeliest = np.concatenate([[True], frames[1:] != frames[:-1]]) if len(frames) else np.empty(0, np.bool_)
    keep = likeliest | (logp >= np.float32(min_logp))  # below it one token is enough, even of several equals
    likeliest = likeliest[keep]
    counts = np.diff(np.flatnonzero(likeliest), append=len(likeliest))
    return frames[keep][likeliest], counts, tokens[keep].astype(np.uint16), logp[keep].astype(np.float16)


def _sparsify_one(log_probs: np.ndarray, pruning: PruneConfig) -> Stretch:
    if log_probs.ndim != 2:
        raise ValueError(f"log-probabilities must have the shape (frames, vocabulary), not {log_probs.shape}")
    frames, vocabulary_size = log_probs.shape
    require_tokens_fit(vocabulary_size)
    sure = log_probs[:, pruning.blank_id].astype(np.float32) > np.float32(least_sure(pruning))
    repeated = sure & np.concatenate([[False], sure[:-1]]) if frames else sure
    kept = np.flatnonzero(~repeated)
    likeliest = log_probs.max(axis=1, initial=-np.inf).astype(np.float32, copy=False)
    require_numbers(likeliest)
    matrix = log_probs.take(kept, axis=0).astype(np.float32, copy=False)
    keep = matrix >= np.minimum(likeliest[kept], np.float32(pruning.min_logp))[:, None]
    rows, tokens = np.divmod(np.flatnonzero(keep), vocabulary_size)  # a tenth of np.nonzero's time
    arranged = arrange(kept[rows], tokens, matrix[rows, tokens], pruning.min_logp)
    return Stretch(frames, vocabulary_size, *arranged, begins_blank=bool(sure[:1].any()), ends_blank=bool(sure[-1:].any()))
