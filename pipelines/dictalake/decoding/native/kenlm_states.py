"""A KenLM model as an automaton: its states get numbers as the search meets them.

A KenLM binary may hold hashes alone, so its n-grams cannot be listed. But each context that it tells apart is a state, and
few of them occur: after some recordings nearly all transitions are in the table, and KenLM is asked no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kenlm

from dictalake.decoding.native.automaton import TransitionTable

MOST_STATES = 200_000  # 60 MB; beyond that a process forgets them between two recordings


class KenlmStates:
    """``table`` holds what was asked so far: log10 P(word | state) and the next state. State 0 is the beginning of a text."""

    def __init__(self, model: Any, words: Sequence[str]) -> None:
        """``words`` by their ids, as the table's symbols."""
        self._model, self._words = model, words
        self.table = TransitionTable(len(words))
        self._numbers: dict[Any, int] = {}
        self._states: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        state = kenlm.State()
        self._model.BeginSentenceWrite(state)
        self._numbers, self._states = {state: 0}, [state]

    def knows(self, word: str) -> bool:
        return word in self._model

    def score_nothing(self) -> float:
        """log10 P of the empty word, which no model knows, and of the end behind it."""
        middle, end = kenlm.State(), kenlm.State()
        return float(self._model.BaseScore(self._states[0], "", middle) + self._model.BaseScore(middle, "</s>", end))

    def forget(self) -> None:
        """Call it between recordings: empties a table that has become too large."""
        if len(self._states) > MOST_STATES:
            self.table.clear()
            self._begin()

    def fill(self, state: int, word: int) -> None:
        """Asks KenLM for a transition."""
        following = kenlm.State()
        logp = self._model.BaseScore(self._states[state], self._words[word], following)
        number = self._numbers.setdefault(following, len(self._states))
        if number == len(self._states):
            self._states.append(following)
        self.table.add(state, word, number, logp)
