"""A mapped KenLM file in the search: the states and transitions that it has met so far, which compiled code looks up.

What was looked up stays in a table, which is several times faster than to look again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kenlm
import numpy as np

from dictalake.decoding.native.hash_table import insert_all
from dictalake.decoding.native.kenlm_layout import KenlmFile, map_kenlm_file
from dictalake.decoding.native.kenlm_lookup import look_up
from dictalake.decoding.native.tables import FILLED, HASHED, STATE, make_records, make_transitions

# Together 60 MB. Beyond one of the two a process forgets all of them between two recordings.
MOST_STATES, MOST_PLACES = 200_000, 1_000_000
_FIRST_PLACES, _FIRST_STATES = 1 << 14, 1 << 12
_WALKS, _STEPS, _TRIED = 8, 6, 12
_UNKNOWN = 0  # of <unk>, and of all words that the model does not know


class KenlmTables:
    """``ids`` are the model's numbers of our words, which are the symbols of ``table``. State 0 is the beginning of a text."""

    def __init__(self, file: KenlmFile, words: Sequence[str]) -> None:
        self._known = {word: number for number, word in enumerate(file.words) if number != _UNKNOWN}
        self.data, self.levels = file.data, file.levels
        self.ids = np.array([self._known.get(word, _UNKNOWN) for word in words], np.int64)
        self.filled = make_records(FILLED, 1)
        self._begin()

    def _begin(self) -> None:
        self.table, self.states = make_transitions(_FIRST_PLACES), make_records(STATE, _FIRST_STATES)
        start = self._known.get("<s>", _UNKNOWN)
        at = int(self.levels["start"][0]) + start * (8 if self.levels["kind"][0] == HASHED else 16)
        self.states["key"][0], self.states["backoff"][0, 0] = start << 3 | 1, self.data.view(np.float32)[at // 4 + 1]
        self.filled["states"], self.filled["places"] = 1, 0

    def knows(self, word: str) -> bool:
        return word in self._known

    def score_nothing(self) -> float:
        """log10 P of a word that the model does not know, and of the end behind it."""
        unknown = self._look_up(0, _UNKNOWN)
        end = self._look_up(int(unknown["next"]), self._known.get("</s>", _UNKNOWN))
        self._begin()
        return float(unknown["value"]) + float(end["value"])

    def _look_up(self, state: int, word: int) -> Any:
        """A transition by the model's number of a word; it does not stay."""
        scratch = make_transitions(8)
        return scratch[look_up(self.data, self.levels, self.states, self.filled, scratch, state, word, 0)]

    def forget(self) -> None:
        """Call it between recordings: empties tables that have become too large."""
        if self.filled["states"][0] > MOST_STATES or self.filled["places"][0] > MOST_PLACES:
            self._begin()

    def make_room(self, beams: int) -> None:
        """Doubles the table that may be too small for what ``beams`` beams look up in a frame; the other one stays."""
        if self.filled["states"][0] + 2 * beams >= len(self.states):
            self.states = np.concatenate([self.states, np.zeros_like(self.states)])
        if 2 * (self.filled["places"][0] + 4 * beams) >= len(self.table):
            before, self.table = self.table, make_transitions(2 * len(self.table))
            insert_all(self.table, before)

    def agrees_with(self, model: Any) -> bool:
        """Whether KenLM gives exactly the same scores, on walks through the model that prefer what it knows."""
        rng, words = np.random.default_rng(0), [*self._known]
        same = True
        for _ in range(_WALKS):
            state, theirs, following = 0, kenlm.State(), kenlm.State()
            model.BeginSentenceWrite(theirs)
            for _ in range(_STEPS):
                tried = [words[number] for number in rng.integers(len(words), size=_TRIED)]
                steps = {word: self._look_up(state, self._known[word]) for word in tried}
                word = max(tried, key=lambda word: float(steps[word]["value"]))
                score = model.BaseScore(theirs, word, following)
                same = same and score == steps[word]["value"]
                state, theirs, following = int(steps[word]["next"]), following, theirs
        self._begin()
        return same


def open_tables(path: Path, model: Any, words: Sequence[str]) -> KenlmTables | None:
    """The tables of a KenLM file that ``model`` has read; None where only KenLM itself can read it."""
    file = map_kenlm_file(path)
    if file is None:
        return None
    tables = KenlmTables(file, words)
    return tables if tables.agrees_with(model) else None
