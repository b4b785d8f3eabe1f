"""The door to the compiled search: emissions in, n-best hypotheses out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.hotwords import HotwordScorer
from dictalake.decoding.native.ends import begin, find_peaks, finish, list_pieces, select_tokens, share_best
from dictalake.decoding.native.frame_loop import DONE, FULL, MISSING, search_frames
from dictalake.decoding.native.hash_table import insert_all
from dictalake.decoding.native.hotword_states import HotwordStates
from dictalake.decoding.native.language_model import OpenModel, open_language_model
from dictalake.decoding.native.steps import LN_10
from dictalake.decoding.native.tables import (
    BEAM,
    BONUS,
    CANDIDATE,
    FOUND,
    NODE,
    PLAIN_WIDTH,
    PROGRESS,
    SETTINGS,
    SPAN,
    WORD,
    LmTables,
    Records,
    make_records,
    make_transitions,
)
from dictalake.decoding.native.token_prices import UNKNOWN_PRICE, price_tokens
from dictalake.decoding.nbest import SLACK_FRAMES, NBest
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.records import Emissions, Hypothesis, Piece

_ROOM = 1 << 12  # texts, spans and pieces at first
_NO_STEPS, _NO_BONUSES = make_transitions(2), make_records(BONUS, 1)


class NativeSearch:
    """Holds the arrays of one decoder. Not for several threads at once."""

    def __init__(self, config: Decoding, vocabulary: Vocabulary, scorer: HotwordScorer | None = None) -> None:
        """Raises ConfigError for a language model that is missing, damaged, or made for other pieces."""
        self._vocabulary, self._min_logp = vocabulary, float(config.token_min_logp)
        self._lm = open_language_model(config, vocabulary)
        self._hot = None if scorer is None else HotwordStates(scorer, vocabulary)
        self._tokens, offsets = price_tokens(vocabulary, self._lm.knows, config.known_pieces)
        self._words = make_records(WORD, len(offsets))
        self._words["lm_id"], self._words["offset"] = self._lm.ids, offsets
        self._settings = _describe(config, vocabulary, self._lm)
        self._most = config.beam_width + PLAIN_WIDTH
        self._beams, self._after = make_records(BEAM, self._most), make_records(BEAM, self._most)
        self._best = make_records(FOUND, config.beam_width + 1)
        self._make_candidates(4 * self._most)
        room = max(_ROOM, 1 << (4 * self._most).bit_length())
        self._nodes, self._children = make_records(NODE, room), make_transitions(2 * room)
        self._spans = make_records(SPAN, room)
        self._chosen, self._pieces = np.zeros(_ROOM, np.int64), np.zeros((_ROOM, 4), np.int64)
        self._progress = make_records(PROGRESS, 1)
        self._missing = np.zeros((4 * self._most, 3), np.int64)

    def search(self, emissions: Emissions, most: int | None = None) -> NBest:
        """The n-best list of a recording or a part of it, or its first ``most``."""
        return self._search(emissions, most, self._hot)

    def _search(self, emissions: Emissions, most: int | None, hot: HotwordStates | None) -> NBest:
        if emissions.vocabulary_size != len(self._vocabulary.pieces):  # compiled code would read beyond the tokens
            raise ValueError(
                f"emissions of {emissions.vocabulary_size} tokens, but the vocabulary has {len(self._vocabulary.pieces)}"
            )
        self._lm.forget()
        if hot is not None:
            hot.forget()
        logp = emissions.logp.astype(np.float32)
        tried = self._select(emissions, logp)
        self._settings["has_hotwords"] = hot is not None
        begin(self._settings, self._automata()[-1], self._nodes, self._children, self._beams, self._progress)
        while (stopped := self._run(*tried)) != DONE:
            if stopped == FULL:
                self._make_room()
            elif stopped == MISSING:
                self._fill()
            elif self._lm.file is not None:
                self._lm.file.make_room(self._most)
        count = self._finish()
        best, plain = self._best[:count], self._best[-1:]
        if hot is None:
            return NBest(self._read(best, emissions, logp, most))
        # Unfinished terms have lost their bonus.
        best[:] = best[np.argsort(-(best["acoustic"] + best["lm"] + best["hot"]), kind="stable")]
        hypotheses = self._read(best, emissions, logp, most)
        if best["node"][0] == plain["node"][0]:  # the same text
            return NBest(hypotheses)
        (best_plain,) = self._read(plain, emissions, logp)
        return NBest(hypotheses, best_plain, lambda: self._search(emissions, None, None).hypotheses)

    def count_bonus(self, pieces: Sequence[Piece]) -> float:
        """The bonus of the hotwords in ``pieces``."""
        return 0.0 if self._hot is None else self._hot.count_bonus([piece.token_id for piece in pieces])

    def _automata(self) -> tuple[LmTables, Records, Records]:
        """The language model, steps of the hotwords and what their states are worth."""
        hot = (_NO_STEPS, _NO_BONUSES) if self._hot is None else (self._hot.table.records, self._hot.bonuses)
        return self._lm.tables(), *hot

    def _make_candidates(self, most: int) -> None:
        self._candidates, self._heap = make_records(CANDIDATE, most), np.zeros(most + 1, np.int64)

    def _select(self, emissions: Emissions, logp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens that each frame tries: offsets, ids, log-probabilities."""
        offsets = np.zeros(len(emissions.offsets), np.int64)
        ids, tried = np.empty(len(logp), np.int64), np.empty(len(logp))
        given = (emissions.offsets, emissions.token_ids, logp)
        most = select_tokens(*given, emissions.vocabulary_size, self._min_logp, offsets, ids, tried)
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
            self._after,
            self._candidates,
            self._heap,
            self._progress,
            self._missing,
        )

    def _finish(self) -> int:
        return finish(
            self._settings,
            self._automata()[-1],
            self._nodes,
            self._beams,
            self._candidates,
            self._heap,
            self._best,
            self._progress,
        )

    def _fill(self) -> None:
        """Looks up the transitions that the search has missed."""
        missed = self._missing[: self._progress["missing"][0]].tolist()
        self._progress["missing"] = 0
        # Two beams of one text miss the same.
        for table, state, symbol in dict.fromkeys(map(tuple, missed)):
            states = self._hot if table else self._lm.states
            assert states is not None
            states.fill(state, symbol)

    def _make_room(self) -> None:
        """Doubles the room for texts and for spans."""
        for name in ("_nodes", "_spans"):
            before = getattr(self, name)
            setattr(self, name, np.concatenate([before, np.zeros_like(before)]))
        children = make_transitions(2 * len(self._children))
        insert_all(children, self._children)
        self._children = children

    def _read(self, best: Records, emissions: Emissions, logp: np.ndarray, most: int | None = None) -> list[Hypothesis]:
        """The hypotheses of a list, or of its beginning. They share the pieces that they have in common."""
        ends, rows, shares = self._list_pieces(best, emissions)
        shown = min(len(best), most or len(best))
        chosen = self._chosen[: ends[shown - 1]].tolist()
        rows = rows[: 1 + max(chosen, default=-1)]  # a hypothesis brings its new rows behind those before
        peaks, names = np.empty(len(rows)), self._vocabulary.pieces
        find_peaks(rows, emissions.offsets, emissions.token_ids, logp, peaks)
        columns = (rows[:, 0], emissions.frame_index[rows[:, 1]], emissions.frame_index[rows[:, 2]] + 1, peaks)
        pieces = [
            Piece(token, names[token], start, end, peak)
            for token, start, end, peak in zip(*(column.tolist() for column in columns), strict=True)
        ]
        spots = [0, *ends[:shown].tolist()]
        texts = [tuple(map(pieces.__getitem__, reversed(chosen[spots[n] : spots[n + 1]]))) for n in range(shown)]
        texts[0] = tuple(
            piece if share == 1.0 else replace(piece, posterior=share)
            for piece, share in zip(texts[0], shares[::-1].tolist(), strict=True)
        )
        scores = zip(*(best[name][:shown].tolist() for name in ("acoustic", "lm", "hot")), strict=True)
        return [Hypothesis(text, *of_one) for text, of_one in zip(texts, scores, strict=True)]

    def _list_pieces(self, best: Records, emissions: Emissions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each hypothesis ends in ``_chosen``, the rows of all pieces, and the posteriors of the best one's."""
        ends, first_rows = np.zeros(len(best), np.int64), np.empty(emissions.kept, np.int64)
        while True:
            given = (self._nodes, self._spans, self._tokens, first_rows, ends)
            used, count = list_pieces(best, *given, self._chosen, self._pieces)
            if used <= len(self._chosen) and count < len(self._pieces):
                break
            self._chosen, self._pieces = np.zeros(2 * used, np.int64), np.zeros((2 * used, 4), np.int64)
        rows, shares = self._pieces[:count], np.empty(ends[0])
        # Without the bonus of hotwords: it is a preference and no evidence.
        share_best(rows, self._chosen, ends, emissions.frame_index, best["acoustic"] + best["lm"], SLACK_FRAMES, shares)
        return ends, rows, shares


def _describe(config: Decoding, vocabulary: Vocabulary, lm: OpenModel) -> Records:
    settings = make_records(SETTINGS, 1)
    size, weight = len(vocabulary.pieces), float(config.lm_weight)
    values = {
        "width": config.beam_width,
        "plain_width": min(PLAIN_WIDTH, config.beam_width),
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
