"""A table of transitions that is filled on demand: the compiled search names what it misses, and Python looks it up."""

from __future__ import annotations

from dictalake.decoding.native.hash_table import insert_all, insert_one
from dictalake.decoding.native.tables import Records, make_transitions

_FIRST_PLACES = 1 << 12


class TransitionTable:
    """``records`` grow so that at least half of their places are free."""

    def __init__(self, symbols: int) -> None:
        self._symbols, self._count = symbols, 0
        self.records: Records = make_transitions(_FIRST_PLACES)

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        self._count = 0
        self.records = make_transitions(_FIRST_PLACES)

    def add(self, state: int, symbol: int, following: int, value: float) -> None:
        """Adds a transition; one that is there already stays."""
        if 2 * self._count >= len(self.records):
            before, self.records = self.records, make_transitions(4 * len(self.records))
            insert_all(self.records, before)
        self._count += insert_one(self.records, state * self._symbols + symbol, following, value)
