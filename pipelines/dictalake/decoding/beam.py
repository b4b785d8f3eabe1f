"""CTC beam search with a language model fused into the search (shallow fusion), as in Google's recipe for MedASR.

Every piece of the vocabulary is a "word", so the n-gram model is over pieces. The search scores each piece as pyctcdecode does:
``acoustic + lm_weight × ln P(piece | before) + word_score``.
Two engines do the same search: our own (``native/``), compiled by numba, and pyctcdecode, which is pure Python and many times
slower. They differ in one thing. pyctcdecode visits the tokens of a frame in the order of a Python set, ours visits them by id;
this order decides which of two equally good beams is dropped.

The recipe gives pyctcdecode no word list. A beam then pays 10 nats for the piece that it is spelling, and more if the piece
has over six letters. So beams are dropped because their last piece is long, and the first piece of a recording is dropped
because it is unfinished. ``decoding.known_pieces`` gives all pieces as the word list, which ends this; without it the search
is the recipe's.

A recording of up to ``WHOLE_FRAMES`` kept frames (two minutes of speech) is searched as a whole, exactly as in the recipe. A
longer one is cut at pauses. Each part is searched with ``CONTEXT_FRAMES`` of its neighbours on both sides, and only its own
pieces are kept. This loses nothing: a search over the whole would spend its beams on alternatives from minutes ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from heapq import nlargest
from itertools import product
from typing import Protocol

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.hotword_check import drop_unsupported
from dictalake.decoding.hotwords import HotwordScorer, read_list
from dictalake.decoding.segments import cut_at_pauses, slice_frames
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis, Piece

WHOLE_FRAMES = 3000
CONTEXT_FRAMES = 200
NATIVE_VERSION = 1  # one more whenever the same emissions may give other words
_SLACK = 2  # frames by which a piece may move and still be the same piece in two hypotheses


class Search(Protocol):
    """An engine: one search over emissions with at least one frame."""

    def search(self, emissions: Emissions) -> tuple[list[Hypothesis], list[Hypothesis]]:
        """The n-best lists without the bonus of hotwords and with it; the second is empty where there are no hotwords."""

    def count_bonus(self, pieces: Sequence[Piece]) -> float:
        """The bonus of the hotwords in ``pieces``."""


class BeamDecoder:
    """Searches a recording, whole or in parts, and checks its hotwords by the sound."""

    def __init__(self, config: Decoding, vocabulary: Vocabulary) -> None:
        self._config, self._vocabulary = config, vocabulary
        hotwords = read_list(config, vocabulary)
        self._has_hotwords = hotwords is not None
        scorer = None if hotwords is None else HotwordScorer(hotwords.hotwords, float(config.hotword_weight), vocabulary)
        self._search: Search = _open_search(config, vocabulary, scorer)
        self.name = name_search(config)

    def decode(self, emissions: Emissions) -> list[Hypothesis]:
        """At most ``beam_width`` hypotheses, the best first.

        The scores are the engine's. For a recording in parts they are sums over the parts with their context, so compare them
        only for the same recording under the same configuration.
        """
        if emissions.kept <= WHOLE_FRAMES:
            return self._search_part(emissions)
        hypotheses: list[Hypothesis] = [Hypothesis(())]
        for start, end in cut_at_pauses(emissions, self._vocabulary.blank_id):
            context_start, context_end = max(0, start - CONTEXT_FRAMES), min(emissions.kept, end + CONTEXT_FRAMES)
            first_frame = int(emissions.frame_index[start])
            next_frame = int(emissions.frame_index[end]) if end < emissions.kept else emissions.frames
            of_part = [
                replace(one, pieces=tuple(piece for piece in one.pieces if first_frame <= piece.start_frame < next_frame))
                for one in self._search_part(slice_frames(emissions, context_start, context_end))
            ]
            hypotheses = join_hypotheses(hypotheses, of_part, self._config.beam_width)
        return hypotheses

    def _search_part(self, emissions: Emissions) -> list[Hypothesis]:
        if emissions.kept == 0:
            return [Hypothesis(())]
        hypotheses, biased = self._search.search(emissions)
        if self._has_hotwords:
            hypotheses = self._check_hotwords(hypotheses, biased, emissions)
        return [measure_posterior(hypotheses), *hypotheses[1:]]

    def _check_hotwords(
        self, plain: Sequence[Hypothesis], biased: Sequence[Hypothesis], emissions: Emissions
    ) -> list[Hypothesis]:
        """The hypotheses with hotwords. If the check refused a hotword: the corrected hypothesis, then the plain ones."""
        count_bonus = self._search.count_bonus
        best, *alternatives = biased
        pieces = best.pieces
        if _ids(best.pieces) != _ids(plain[0].pieces):
            guard = float(self._config.hotword_guard)
            pieces = drop_unsupported(best.pieces, plain[0].pieces, emissions, self._vocabulary.blank_id, guard, count_bonus)
        if _ids(pieces) != _ids(best.pieces):
            source = plain[0] if _ids(pieces) == _ids(plain[0].pieces) else best
            best = replace(source, pieces=pieces, hotword_score=count_bonus(pieces))
            alternatives = [replace(one, hotword_score=count_bonus(one.pieces)) for one in plain]
        return [best, *(other for other in alternatives if _ids(other.pieces) != _ids(best.pieces))]


def _open_search(config: Decoding, vocabulary: Vocabulary, scorer: HotwordScorer | None) -> Search:
    # numba and pyctcdecode are imported by those who search.
    if config.engine == "pyctcdecode":
        from dictalake.decoding.pyctcdecode_search import PyctcdecodeSearch

        return PyctcdecodeSearch(config, vocabulary, scorer)
    from dictalake.decoding.native.search import NativeSearch

    return NativeSearch(config, vocabulary, scorer)


def name_search(config: Decoding) -> str:
    """The decoder's name for provenance, without opening it. Raises ConfigError for a missing engine."""
    if config.engine == "pyctcdecode":
        from dictalake.decoding.pyctcdecode_search import name_pyctcdecode

        return name_pyctcdecode()
    return f"native {NATIVE_VERSION}"


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
            for frame in range(p.start_frame - _SLACK, p.end_frame + _SLACK)
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
        distinct.setdefault(tuple(_ids(one.pieces)), one)
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


def _ids(pieces: Sequence[Piece]) -> list[int]:
    return [piece.token_id for piece in pieces]
