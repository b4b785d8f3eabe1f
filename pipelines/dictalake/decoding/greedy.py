"""Best-path decoding (Graves et al. 2006, section 3.2): the likeliest token of each frame, repeats merged, blanks dropped."""

from __future__ import annotations

import numpy as np

from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis, Piece


class GreedyDecoder:
    """Works on the sparse form and makes no dense matrix."""

    name = "greedy"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def prepare(self) -> None:
        """Nothing."""

    def decode(self, emissions: Emissions, most: int | None = None) -> list[Hypothesis]:
        """One hypothesis; ``acoustic_score`` is the log-probability of the best path over the kept frames."""
        if emissions.kept == 0:
            return [Hypothesis(())]
        token_ids, logp = best_path(emissions)
        first = np.flatnonzero(np.concatenate([[True], token_ids[1:] != token_ids[:-1]]))
        after = np.append(first[1:], len(token_ids))
        peaks = np.maximum.reduceat(logp, first)
        pieces = tuple(
            Piece(
                token_id=int(token_ids[start]),
                text=self._vocabulary.pieces[token_ids[start]],
                start_frame=int(emissions.frame_index[start]),
                end_frame=int(emissions.frame_index[end - 1]) + 1,
                logp=float(peak),
            )
            for start, end, peak in zip(first, after, peaks, strict=True)
            if int(token_ids[start]) not in self._vocabulary.special_ids
        )
        return [Hypothesis(pieces, acoustic_score=float(logp.sum(dtype=np.float64)))]


def best_path(emissions: Emissions) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest token of each kept frame and its log-probability, ``(kept,)`` each; of equal tokens the first."""
    starts = emissions.offsets[:-1].astype(np.int64)
    counts = np.diff(emissions.offsets)
    logp = emissions.logp.astype(np.float32)
    best = np.maximum.reduceat(logp, starts)
    candidates = np.flatnonzero(logp == np.repeat(best, counts))
    frames = np.repeat(np.arange(emissions.kept), counts)[candidates]
    _, first = np.unique(frames, return_index=True)
    return emissions.token_ids[candidates[first]].astype(np.int64), best
