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
from typing import Protocol

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.hotword_check import drop_unsupported
from dictalake.decoding.hotwords import HotwordScorer, read_list
from dictalake.decoding.nbest import NBest, join_hypotheses, measure_posterior
from dictalake.decoding.segments import cut_at_pauses, slice_frames
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis, Piece

WHOLE_FRAMES = 3000
CONTEXT_FRAMES = 200
NATIVE_VERSION = 2  # one more whenever the same emissions may give other words


class Search(Protocol):
    """An engine: one search over emissions with at least one frame."""

    def search(self, emissions: Emissions, most: int | None = None) -> NBest:
        """The n-best list, or its first ``most``."""

    def count_bonus(self, pieces: Sequence[Piece]) -> float:
        """The bonus of the hotwords in ``pieces``."""


class BeamDecoder:
    """Searches a recording, whole or in parts, and checks its hotwords by the sound."""

    def __init__(self, config: Decoding, vocabulary: Vocabulary) -> None:
        self._config, self._vocabulary = config, vocabulary
        hotwords = read_list(config, vocabulary)
        scorer = None if hotwords is None else HotwordScorer(hotwords.hotwords, float(config.hotword_weight), vocabulary)
        self._search: Search = _open_search(config, vocabulary, scorer)
        self.name = name_search(config)

    def prepare(self) -> None:
        """Searches a moment of silence, which compiles the search or loads it from numba's cache."""
        silence = Emissions(
            frames=1,
            vocabulary_size=len(self._vocabulary.pieces),
            frame_index=np.zeros(1, np.int32),
            offsets=np.array([0, 1], np.int32),
            token_ids=np.array([self._vocabulary.blank_id], np.uint16),
            logp=np.zeros(1, np.float16),
        )
        self._search.search(silence)

    def decode(self, emissions: Emissions, most: int | None = None) -> list[Hypothesis]:
        """``most`` hypotheses at most, and never more than ``beam_width``, the best first.

        The scores are the engine's. For a recording in parts they are sums over the parts with their context, so compare them
        only for the same recording under the same configuration.
        """
        if emissions.kept <= WHOLE_FRAMES:
            return self._search_part(emissions, most)[:most]
        # Parts have doubles once their context is cut off, so the best pairs may need whole lists.
        of_parts = 1 if most == 1 else None
        hypotheses: list[Hypothesis] = [Hypothesis(())]
        for start, end in cut_at_pauses(emissions, self._vocabulary.blank_id):
            context_start, context_end = max(0, start - CONTEXT_FRAMES), min(emissions.kept, end + CONTEXT_FRAMES)
            first_frame = int(emissions.frame_index[start])
            next_frame = int(emissions.frame_index[end]) if end < emissions.kept else emissions.frames
            of_part = [
                replace(one, pieces=tuple(piece for piece in one.pieces if first_frame <= piece.start_frame < next_frame))
                for one in self._search_part(slice_frames(emissions, context_start, context_end), of_parts)
            ]
            hypotheses = join_hypotheses(hypotheses, of_part, self._config.beam_width)[:of_parts]
        return hypotheses[:most]

    def _search_part(self, emissions: Emissions, most: int | None) -> list[Hypothesis]:
        if emissions.kept == 0:
            return [Hypothesis(())]
        hypotheses, best_plain, search_plain = self._search.search(emissions, most)
        if best_plain is None or search_plain is None or self._correct(hypotheses[0], best_plain, emissions) is None:
            return hypotheses
        # A hotword may have to be refused: by a search without hotwords, whose hypotheses then follow the corrected one.
        plain = search_plain()
        corrected = self._correct(hypotheses[0], plain[0], emissions)
        if corrected is None:
            return hypotheses
        alternatives = [one for one in plain if _ids(one) != _ids(corrected)]
        count_bonus = self._search.count_bonus
        corrected, *alternatives = (replace(one, hotword_score=count_bonus(one.pieces)) for one in (corrected, *alternatives))
        return [measure_posterior([corrected, *alternatives]), *alternatives]

    def _correct(self, best: Hypothesis, plain: Hypothesis, emissions: Emissions) -> Hypothesis | None:
        """None where the sound bears the hotwords of ``best``; else it with some or all places as in ``plain``."""
        guard, blank_id = float(self._config.hotword_guard), self._vocabulary.blank_id
        pieces = drop_unsupported(best.pieces, plain.pieces, emissions, blank_id, guard, self._search.count_bonus)
        corrected = replace(best, pieces=pieces)
        if _ids(corrected) == _ids(best):
            return None
        return replace(plain, pieces=pieces) if _ids(corrected) == _ids(plain) else corrected


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


def _ids(hypothesis: Hypothesis) -> list[int]:
    return [piece.token_id for piece in hypothesis.pieces]
