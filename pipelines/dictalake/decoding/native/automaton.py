"""A table of transitions that is filled on demand: the compiled search names what it misses, and Python looks it up."""

from __future__ import annotations

from collections.abc import Sequence

from dictalake.decoding.native.steps import insert_all
from dictalake.decoding.native.tables import TRANSITION, Records, make_records, make_transitions

_FIRST_PLACES = 1 << 12

Step = tuple[int, int, int, float]  # state, symbol, next state, value


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

    def add(self, steps: Sequence[Step]) -> None:
        """Adds transitions that are not there yet; each at most once."""
        self._count += len(steps)
        if 2 * self._count > len(self.records):
            before, self.records = self.records, make_transitions(1 << (4 * self._count).bit_length())
            insert_all(self.records, before)
        added = make_records(TRANSITION, len(steps))
        for record, (state, symbol, following, value) in zip(added, steps, strict=True):
            record["key"], record["next"], record["value"] = state * self._symbols + symbol, following, value
        insert_all(self.records, added)
