"""Hotwords as an automaton over tokens: which terms are being spelt, and what their letters have earned so far.

It gives the bonus of ``decoding/hotwords.py``, counted from the best finished terms. So the same terms in the making are one
state, wherever they stand, and its transitions are worked out once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dictalake.decoding.hotwords import HotwordScorer, Threads
from dictalake.decoding.native.automaton import TransitionTable
from dictalake.decoding.native.tables import BONUS, Records, make_records
from dictalake.decoding.vocabulary import Vocabulary

MOST_STATES = 200_000


class HotwordStates:
    """``table`` holds what was worked out so far: the next state, and what finished terms have gained.

    ``bonuses`` says what each state is worth beside that.
    """

    def __init__(self, scorer: HotwordScorer, vocabulary: Vocabulary) -> None:
        self._scorer, self._words = scorer, vocabulary.lm_words()
        self.table = TransitionTable(len(vocabulary.pieces))
        self._begin()

    def _begin(self) -> None:
        self._numbers: dict[tuple[tuple[int, float], ...], int] = {}
        self._threads: list[Threads] = []
        self._steps: dict[tuple[int, int], tuple[int, float]] = {}
        self.bonuses: Records = make_records(BONUS, 64)
        self._number(self._scorer.start)

    def forget(self) -> None:
        """Call it between recordings: empties a table that has become too large."""
        if len(self._threads) > MOST_STATES:
            self.table.clear()
            self._begin()

    def fill(self, state: int, token: int) -> None:
        """Works out a transition."""
        following, gain = self._step(state, token)
        self.table.add(state, token, following, gain)

    def _step(self, state: int, token: int) -> tuple[int, float]:
        gain, threads = self._scorer.advance((0.0, self._threads[state]), self._words[token])
        return self._number(tuple((node, round(before - gain, 9)) for node, before in threads)), gain

    def _number(self, threads: Threads) -> int:
        number = self._numbers.setdefault(tuple((id(node), before) for node, before in threads), len(self._threads))
        if number == len(self._threads):
            self._threads.append(threads)
            if number == len(self.bonuses):
                self.bonuses = np.concatenate([self.bonuses, make_records(BONUS, number)])
            worth = [(before + node.bonus, node.ends) for node, before in threads]
            self.bonuses[number] = (
                max([0.0, *(bonus for bonus, _ in worth)]),
                max([0.0, *(bonus for bonus, ends in worth if ends)]),
            )
        return number

    def count_bonus(self, token_ids: Sequence[int]) -> float:
        """The bonus of a whole text."""
        state, best, steps = 0, 0.0, self._steps
        for token in token_ids:
            step = steps.get((state, token))
            if step is None:
                step = steps[state, token] = self._step(state, token)
            state, gain = step
            best += gain
        return best + float(self.bonuses[state]["finished"])
