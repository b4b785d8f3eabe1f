"""How many bytes to ask a storage for at once: few of a slow one, or its honest answer would come after it was given up as
silent; many of a fast one, where each request costs a round trip."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dictalake.archive.deadlines import LEAST_BYTES, running_call

_FAST, _SLOW = 1 / 30, 1 / 15  # of the time that counts as silence
_GROWTH = 4
_FALL = 16
_TRUST = 256  # full answers that came fast, before more is asked for again than what was once too much


class Pace:
    """Begins small, and grows while answers come fast. Any number of threads may share one."""

    def __init__(self, most: int) -> None:
        self._most = self._ceiling = most
        self._fast = 0
        self.size = LEAST_BYTES

    def slow_down(self) -> None:
        """So much was too much: some storages send the first bytes of each object fast, and only then slowly."""
        self._ceiling = max(LEAST_BYTES, self._ceiling // _FALL)
        self.size, self._fast = LEAST_BYTES, 0

    def ask(self, room: int, silence_s: float, read: Callable[[int], bytes]) -> tuple[bytes, bool]:
        """What ``read`` gives for a number of bytes, at most ``room``, and whether it gave that many."""
        size, began_at = min(self.size, room), time.monotonic()
        with running_call().stopped_by(self.slow_down):
            piece = read(size)
        seconds = time.monotonic() - began_at
        if seconds > silence_s * _SLOW:
            self.size = max(LEAST_BYTES, size // _GROWTH)
        elif seconds < silence_s * _FAST and len(piece) >= self.size:
            self._grow(len(piece))
        return piece, len(piece) >= size

    def _grow(self, size: int) -> None:
        self._fast += 1
        if self._fast >= _TRUST:
            self._fast, self._ceiling = 0, min(self._most, self._ceiling * 2)
        self.size = min(self._ceiling, size * _GROWTH)


def pace_of(filesystem: Any, most: int) -> Pace:
    """The one that all objects of ``filesystem`` share."""
    pace: Pace | None = getattr(filesystem, "_dictalake_pace", None)
    if pace is None:
        pace = filesystem._dictalake_pace = Pace(most)
    return pace
