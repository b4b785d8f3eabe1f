"""N-best lists: what a search gives, the posterior of pieces in a list, and the list of a recording in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import nlargest
from itertools import product
from typing import NamedTuple

import numpy as np

from dictalake.records import Hypothesis

SLACK_FRAMES = 2  # by which a piece may move and still be the same piece in two hypotheses


class NBest(NamedTuple):
    """The hypotheses of one search, the best first; the pieces of the first have their posterior.

    With hotwords it is the list that favours them. Where they change the best one, ``best_plain`` is the best hypothesis
    without their bonus, as far as this search knows it, and ``search_plain`` gives the list of a search without hotwords.
    """

    hypotheses: list[Hypothesis]
    best_plain: Hypothesis | None = None
    search_plain: Callable[[], list[Hypothesis]] | None = None


def measure_posterior(hypotheses: Sequence[Hypothesis]) -> Hypothesis:
    """The first of ``hypotheses`` (the n-best of one search); each piece gets the share of them that has it at this time.

    Each hypothesis weighs by the softmax of its acoustic and language model score. This is the posterior of the list, as in
    confusion networks (Mangu et al. 2000).
    """
    best = hypotheses[0]
    # Without the bonus of hotwords: it is a preference and no evidence.
    scores = np.array([hypothesis.acoustic_score + hypothesis.lm_score for hypothesis in hypotheses])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    posterior = [1.0] * len(best.pieces)
    for hypothesis, share in zip(hypotheses[1:], shares[1:].tolist(), strict=True):
        there = {id(piece) for piece in hypothesis.pieces}  # hypotheses of one search share their piece objects
        missing = [index for index, piece in enumerate(best.pieces) if id(piece) not in there]
        tokens = {best.pieces[index].token_id for index in missing}
        places = {
            (p.token_id, frame)
            for p in hypothesis.pieces
            if p.token_id in tokens
            for frame in range(p.start_frame - SLACK_FRAMES, p.end_frame + SLACK_FRAMES)
        }
        for index in missing:
            if (best.pieces[index].token_id, best.pieces[index].start_frame) not in places:
                posterior[index] = max(0.0, posterior[index] - share)
    pieces = (
        piece if share == piece.posterior else replace(piece, posterior=share)
        for piece, share in zip(best.pieces, posterior, strict=True)
    )
    return replace(best, pieces=tuple(pieces))


def join_hypotheses(before: Sequence[Hypothesis], after: Sequence[Hypothesis], most: int) -> list[Hypothesis]:
    """The ``most`` best pairs of a hypothesis from ``before`` and one from ``after``.

    The pair of the two first ones stays first whatever its score, since a hypothesis keeps the score of a refused hotword.
    Of several pairs with the same pieces the first counts.
    """
    distinct: dict[tuple[int, ...], Hypothesis] = {}
    for one in after:
        distinct.setdefault(tuple(piece.token_id for piece in one.pieces), one)
    best, *alternatives = product(before, distinct.values())
    alternatives = nlargest(most - 1, alternatives, key=lambda pair: pair[0].total_score + pair[1].total_score)
    return [
        Hypothesis(
            one.pieces + other.pieces,
            one.acoustic_score + other.acoustic_score,
            one.lm_score + other.lm_score,
            one.hotword_score + other.hotword_score,
        )
        for one, other in (best, *alternatives)
    ]
