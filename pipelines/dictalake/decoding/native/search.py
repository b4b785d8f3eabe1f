"""The door to the compiled search: emissions in, n-best hypotheses out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.hotwords import HotwordScorer
from dictalake.decoding.native.ends import begin, finish, select_tokens, unroll
from dictalake.decoding.native.frame_loop import DONE, FULL, search_frames
from dictalake.decoding.native.hotword_states import HotwordStates
from dictalake.decoding.native.language_model import OpenModel, open_language_model
from dictalake.decoding.native.steps import LN_10, insert_all
from dictalake.decoding.native.tables import (
    BEAM,
    BIASED,
    BONUS,
    CANDIDATE,
    CLAIM,
    FOUND,
    NODE,
    PLAIN,
    PROGRESS,
    SETTINGS,
    SPAN,
    STANDING,
    WORD,
    Records,
    make_records,
    make_transitions,
)
from dictalake.decoding.native.token_prices import UNKNOWN_PRICE, price_tokens
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis, Piece

_ROOM = 1 << 12  # texts, spans and pieces at first
_NO_STEPS, _NO_BONUSES = make_transitions(2), make_records(BONUS, 1)

_Key = tuple[int, int, int]  # token, first frame, last frame


class NativeSearch:
    """Holds the arrays of one decoder. Not for several threads at once."""

    def __init__(self, config: Decoding, vocabulary: Vocabulary, scorer: HotwordScorer | None = None) -> None:
        """Raises ConfigError for a language model that is missing, damaged, or made for other pieces."""
        self._vocabulary, self._min_logp = vocabulary, float(config.token_min_logp)
        self._lm = open_language_model(config.lm, vocabulary)
        self._hot = None if scorer is None else HotwordStates(scorer, vocabulary)
        self._tokens, offsets = price_tokens(vocabulary, self._lm.knows, config.known_pieces)
        self._words = make_records(WORD, len(offsets))
        self._words["lm_id"], self._words["offset"] = self._lm.ids, offsets
        self._settings = _describe(config, vocabulary, self._lm, 1 if scorer is None else 2)
        self._most = config.beam_width * int(self._settings["rankings"][0])
        self._beams, self._best = make_records(BEAM, self._most), make_records(FOUND, 2, config.beam_width)
        self._standings, self._after = make_records(STANDING, 2, self._most), make_records(STANDING, 2, self._most)
        self._make_candidates(4 * self._most)
        room = max(_ROOM, 1 << (4 * self._most).bit_length())
        self._nodes, self._children = make_records(NODE, room), make_transitions(2 * room)
        self._spans = make_records(SPAN, room)
        self._pieces, self._peaks = np.zeros((_ROOM, 3), np.int64), np.zeros(_ROOM, np.float32)
        self._progress, self._counts = make_records(PROGRESS, 1), np.zeros(2, np.int64)
        self._missing = np.zeros((4 * self._most, 3), np.int64)

    def search(self, emissions: Emissions) -> tuple[list[Hypothesis], list[Hypothesis]]:
        """The n-best lists without the bonus of hotwords and with it; the second is empty where there are no hotwords."""
        for states in (self._lm.states, self._hot):
            if states is not None:
                states.forget()
        logp = emissions.logp.astype(np.float32)
        tried = self._select(emissions, logp)
        *_, bonuses = self._automata()
        begin(self._settings, bonuses, self._nodes, self._children, self._beams, self._standings, self._progress)
        while (stopped := self._run(*tried)) != DONE:
            if stopped == FULL:
                self._make_room()
            else:
                self._fill()
        while self._finish() != DONE:
            self._fill()
        known: dict[_Key, Piece] = {}
        plain = self._read(PLAIN, emissions, logp, known)
        return plain, [] if self._hot is None else self._read(BIASED, emissions, logp, known)

    def count_bonus(self, pieces: Sequence[Piece]) -> float:
        """The bonus of the hotwords in ``pieces``."""
        return 0.0 if self._hot is None else self._hot.count_bonus([piece.token_id for piece in pieces])

    def _automata(self) -> tuple[Records, Records, Records, Records, Records]:
        """N-grams and contexts, what KenLM was asked, steps of the hotwords and what their states are worth."""
        asked = _NO_STEPS if self._lm.states is None else self._lm.states.table.records
        hot = (_NO_STEPS, _NO_BONUSES) if self._hot is None else (self._hot.table.records, self._hot.bonuses)
        return self._lm.ngrams, self._lm.contexts, asked, *hot

    def _make_candidates(self, most: int) -> None:
        self._candidates, self._claims = make_records(CANDIDATE, most), make_records(CLAIM, 2, most)
        self._heap = np.zeros(most, np.int64)

    def _select(self, emissions: Emissions, logp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens that each frame tries: offsets, ids, log-probabilities."""
        offsets = np.zeros(len(emissions.offsets), np.int64)
        ids, tried = np.empty(len(logp), np.int64), np.empty(len(logp))
        most = select_tokens(emissions.offsets, emissions.token_ids, logp, self._min_logp, offsets, ids, tried)
        if most * self._most > len(self._candidates):
            self._make_candidates(most * self._most)
        return offsets, ids, tried

    def _run(self, offsets: np.ndarray, token_ids: np.ndarray, logp: np.ndarray) -> int:
        return search_frames(
            self._settings,
            offsets,
            token_ids,
            logp,
            self._tokens,
            self._words,
            *self._automata(),
            self._nodes,
            self._children,
            self._spans,
            self._beams,
            self._standings,
            self._after,
            self._candidates,
            self._claims,
            self._heap,
            self._progress,
            self._missing,
        )

    def _finish(self) -> int:
        return finish(
            self._settings,
            self._words,
            *self._automata(),
            self._nodes,
            self._beams,
            self._standings,
            self._candidates,
            self._claims,
            self._heap,
            self._best,
            self._counts,
            self._progress,
            self._missing,
        )

    def _fill(self) -> None:
        """Looks up the transitions that the search has missed."""
        missed = self._missing[: self._progress["missing"][0]].tolist()
        self._progress["missing"] = 0
        for table, states in enumerate((self._lm.states, self._hot)):
            if states is not None:
                states.fill((state, symbol) for which, state, symbol in missed if which == table)

    def _make_room(self) -> None:
        """Doubles the room for texts and for spans."""
        for name in ("_nodes", "_spans"):
            before = getattr(self, name)
            setattr(self, name, np.concatenate([before, np.zeros_like(before)]))
        children = make_transitions(2 * len(self._children))
        insert_all(children, self._children)
        self._children = children

    def _read(self, ranking: int, emissions: Emissions, logp: np.ndarray, known: dict[_Key, Piece]) -> list[Hypothesis]:
        """The n-best list of a ranking. Hypotheses share the pieces that they have in common."""
        best, ends = self._best[ranking], np.zeros(int(self._counts[ranking]), np.int64)
        given = (self._nodes, self._spans, self._tokens, emissions.offsets, emissions.token_ids, logp)
        while (count := unroll(best, *given, ends, self._pieces, self._peaks)) > len(self._peaks):
            self._pieces, self._peaks = np.zeros((2 * count, 3), np.int64), np.zeros(2 * count, np.float32)
        frames, names = emissions.frame_index.tolist(), self._vocabulary.pieces
        pieces = []
        for key, peak in zip(map(tuple, self._pieces[:count].tolist()), self._peaks[:count].tolist(), strict=True):
            piece = known.get(key)
            if piece is None:
                token, first, last = key
                piece = known[key] = Piece(token, names[token], frames[first], frames[last] + 1, peak)
            pieces.append(piece)
        spots = [0, *ends.tolist()]
        acoustic, lm, hot = (best[name].tolist() for name in ("acoustic", "lm", "hot"))
        hypotheses = [
            Hypothesis(tuple(reversed(pieces[spots[rank] : spots[rank + 1]])), acoustic[rank], lm[rank], hot[rank])
            for rank in range(len(ends))
        ]
        if ranking == BIASED:
            hypotheses.sort(key=lambda hypothesis: -hypothesis.total_score)  # unfinished terms have lost their bonus
        return hypotheses


def _describe(config: Decoding, vocabulary: Vocabulary, lm: OpenModel, rankings: int) -> Records:
    settings = make_records(SETTINGS, 1)
    size, weight = len(vocabulary.pieces), float(config.lm_weight)
    values = {
        "width": config.beam_width,
        "rankings": rankings,
        "prune_logp": config.beam_prune_logp,
        "blank_id": vocabulary.blank_id,
        "tokens": size,
        "glued_word": size,
        "end_word": size + 1,
        "glued_partial": 0.0 if lm.knows is None else UNKNOWN_PRICE,
        "lm_kind": lm.kind,
        "lm_weight": weight,
        "word_score": config.word_score,
        "lm_start": lm.start,
        # A recording without words is scored like an unknown word, as in pyctcdecode.
        "nothing": 0.0 if lm.knows is None else weight * (lm.nothing + UNKNOWN_PRICE) * LN_10 + float(config.word_score),
    }
    for name, value in values.items():
        settings[name] = value
    return settings
