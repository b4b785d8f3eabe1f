"""The guard against over-biasing: what hotwords changed stays only where the sound bears it.

Shallow fusion with hotwords trades sound against the list, and a long list with a high weight invents terms. Therefore each
place where the reading with hotwords differs from the one without is judged by the sound alone: by the CTC likelihood of
either's pieces over the frames of that place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

import numpy as np

from pipelines.records import Hypothesis, Piece


def drop_unheard(
    biased: Hypothesis,
    plain: Hypothesis,
    log_probs: np.ndarray,
    frame_index: np.ndarray,
    blank_id: int,
    most_nats: float,
    count_bonus: Callable[[Sequence[Piece]], float],
) -> Hypothesis:
    """``biased`` with the pieces of ``plain`` wherever its own earn no hotword, or are ``most_nats`` less likely to the ear.

    ``log_probs`` float32 ``(kept, vocabulary)`` are those of the true frames ``frame_index`` ``(kept,)``; ``count_bonus`` says
    what the hotwords in some pieces are worth. The scores stay those of ``biased``, unless all of it is refused.
    """
    pieces: list[Piece] = []
    refused = changed = 0
    matcher = SequenceMatcher(None, _ids(biased.pieces), _ids(plain.pieces), autojunk=False)
    for kind, start, end, plain_start, plain_end in matcher.get_opcodes():
        mine, theirs = biased.pieces[start:end], plain.pieces[plain_start:plain_end]
        if kind == "equal":
            pieces += mine
            continue
        changed += 1
        rest = biased.pieces[end:]
        is_heard = count_bonus([*pieces, *mine, *rest]) > count_bonus([*pieces, *theirs, *rest])
        if is_heard:
            first, last = _find_place(biased, plain, (start, end), (plain_start, plain_end), frame_index)
            rows = log_probs[first:last]
            loss = log_likelihood(rows, _ids(theirs), blank_id) - log_likelihood(rows, _ids(mine), blank_id)
            is_heard = loss <= most_nats
        refused += not is_heard
        pieces += mine if is_heard else theirs
    if refused and refused == changed:
        return plain
    return replace(biased, pieces=tuple(pieces))


def _ids(pieces: Sequence[Piece]) -> list[int]:
    return [piece.token_id for piece in pieces]


def _find_place(
    biased: Hypothesis, plain: Hypothesis, mine: tuple[int, int], theirs: tuple[int, int], frame_index: np.ndarray
) -> tuple[int, int]:
    """Kept frames ``[first, last)`` between the pieces before and after that the two readings share."""
    before = [one.pieces[at - 1].end_frame for one, at in ((biased, mine[0]), (plain, theirs[0])) if at > 0]
    after = [one.pieces[at].start_frame for one, at in ((biased, mine[1]), (plain, theirs[1])) if at < len(one.pieces)]
    inside = [piece for one, (a, b) in ((biased, mine), (plain, theirs)) for piece in one.pieces[a:b]]
    # The shared piece may have moved between the readings: what either says here must fit in.
    first_frame = min([max(before, default=0), *(piece.start_frame for piece in inside)])
    last_frame = max([min(after, default=int(frame_index[-1]) + 1), *(piece.end_frame for piece in inside)])
    first, last = np.searchsorted(frame_index, [first_frame, last_frame])
    return int(first), max(int(last), int(first) + 1)


def log_likelihood(log_probs: np.ndarray, token_ids: Sequence[int], blank_id: int) -> float:
    """ln P(``token_ids`` | frames) over all CTC alignments (Graves et al. 2006, section 4.1); -inf where they do not fit.

    ``log_probs`` ``(frames, vocabulary)``. No tokens: the likelihood of nothing but blanks.
    """
    labels = np.full(2 * len(token_ids) + 1, blank_id)
    labels[1::2] = token_ids
    emitted = log_probs[:, labels].astype(np.float64)
    # From two labels before only to a token, and not to one that repeats the last: a blank must stand between.
    jumps = np.zeros(len(labels), dtype=bool)
    jumps[3::2] = labels[3::2] != labels[1:-2:2]
    alpha = np.full(len(labels), -np.inf)
    alpha[:2] = emitted[0, :2]
    for row in emitted[1:]:
        stepped = np.concatenate([[-np.inf], alpha[:-1]])
        jumped = np.where(jumps, np.concatenate([[-np.inf, -np.inf], alpha[:-2]])[: len(alpha)], -np.inf)
        alpha = np.logaddexp(np.logaddexp(alpha, stepped), jumped) + row
    return float(np.logaddexp.reduce(alpha[-2:]))
