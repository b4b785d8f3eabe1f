"""Puts decoded blocks on the clock of their recording: what is missing becomes silence of its length, and is counted."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from dictalake.records import Account

_TOLERANCE_S = 0.03  # Matroska rounds to milliseconds, Vorbis moves its blocks about; a packet of speech is 20 ms
_MOST_TOLERANCE_S = 0.1
_EXACT_S = 0.001
_LATE_S = 0.2  # later than any codec's delay
_CONTRADICTION_S = 0.5
_SILENCE_FRAMES = 2**16


class Timeline:
    """Where the next block of one sound track goes. All times in seconds.

    With a clock (``place`` with ``start_s``), gaps are measured; without one (raw MP3, ADTS …) the reader says with ``miss``
    how long what it skipped would have been. ``most_s`` is the longest recording: a clock that jumps further is not believed.
    ``is_exact`` says that the clock counts samples. ``is_damaged`` says that bytes are known to be damaged: then a jump of the
    clock is damage, too. ``most_gap_s`` is the longest jump that may be a hole; beyond it the clock starts anew. A
    first block up to ``begins_by_s`` is a late one, and sound is missing before it.
    """

    def __init__(
        self,
        most_s: float,
        *,
        is_exact: bool = False,
        is_damaged: bool = False,
        most_gap_s: float = float("inf"),
        has_clock: bool = True,
        begins_by_s: float = 0.0,
    ) -> None:
        self.at_s = 0.0  # where the next block goes
        self.decoded_s = 0.0
        self.lost_s = 0.0
        self.broken_s = 0.0
        self.is_unknown = False
        self.repairs: set[str] = set()
        self._most_s = most_s
        self._is_exact, self._is_damaged, self._most_gap_s = is_exact, is_damaged, most_gap_s
        self._has_clock, self._begins_by_s = has_clock, begins_by_s
        self._lead_s = 0.0
        self._offset_s: float | None = None  # the clock's time of the recording's beginning
        self._first_s = 0.0
        self._broke = False  # since the last block
        self._filled_s = 0.0
        self._owed_s = 0.0  # silence that a clockless reader wants before its next block
        self._block_s = 0.0
        self._starts = array("d")  # of each block by the clock, and its length
        self._trusted: array[float] | None = None
        self._end_s = float("inf")
        self.was_misled = False  # a jump ahead that was filled turned out to be none

    def begin(self, clock_s: float) -> None:
        """The clock's time of the first packet, whether it can be decoded or not. Later calls change nothing."""
        if self._offset_s is None:
            self._offset_s = self._first_s = clock_s

    def begin_later(self, origin_s: float) -> None:
        """The recording begins at ``origin_s``; that this track may begin later is no loss."""
        self.begin(origin_s)
        self._lead_s = float("inf")

    def trust(self, other: Timeline) -> bool:
        """Takes the times of ``other``, which saw the same blocks; a time that lies behind a later one, or the end, is wrong.

        False where that leaves less time than was decoded: then the clock contradicts itself.
        """
        first_s = other._starts[0]
        starts = np.array(other._starts)
        begins, lengths = starts[::2], starts[1::2]
        begins[-1] = min(begins[-1], other._end_s - lengths[-1])
        played = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
        starts[::2] = played + np.minimum.accumulate((begins - played)[::-1])[::-1]
        self._trusted = array("d", starts.tolist())
        return bool(self._trusted[0] >= first_s - _MOST_TOLERANCE_S)

    def break_packet(self) -> None:
        """A packet cannot be decoded; the clock will tell how long it was."""
        self._broke = True

    def miss(self, seconds: float) -> None:
        """So much sound cannot be decoded here, by a reader without a clock."""
        self._broke = True
        self._owed_s += seconds

    def place(self, start_s: float | None, length_s: float) -> float:
        """The silence to put before a block of ``length_s`` that the clock has at ``start_s``."""
        if length_s > self._block_s:
            self._block_s = length_s
        if start_s is None and not self._broke and not self._owed_s and not self._lead_s:
            self.at_s += length_s
            self.decoded_s += length_s
            return 0.0
        gap_s = self._owed_s
        if start_s is not None and self._has_clock:
            self._starts.extend((start_s, length_s))
            if self._trusted is not None and len(self._starts) <= len(self._trusted):
                start_s = self._trusted[len(self._starts) - 2]
            self.begin(0.0 if _LATE_S < start_s <= self._begins_by_s else start_s)
            gap_s = start_s - (self._offset_s or 0.0) - self.at_s
        lead_s, self._lead_s = min(max(gap_s, 0.0), self._lead_s), 0.0
        silence_s = lead_s + self._fill(gap_s - lead_s)
        self._broke, self._owed_s = False, 0.0
        self.at_s += silence_s + length_s
        self.decoded_s += length_s
        return silence_s

    def _fill(self, gap_s: float) -> float:
        tolerance_s = _EXACT_S if self._is_exact else min(max(_TOLERANCE_S, 1.5 * self._block_s), _MOST_TOLERANCE_S)
        if gap_s < -tolerance_s or gap_s > self._most_gap_s or self.at_s + gap_s > self._most_s:
            self.was_misled |= gap_s < 0 and self._filled_s >= -gap_s - tolerance_s
            # The clock starts anew, or jumps further than any recording is long: it tells nothing about this place.
            self._offset_s = (self._offset_s or 0.0) + gap_s
            self.repairs.add("clock_reset")
            self.is_unknown |= gap_s > 0
            return 0.0
        if gap_s <= tolerance_s and not (self._broke and gap_s > 0):
            return 0.0
        self.lost_s += gap_s
        self._filled_s += gap_s
        is_damage = self._broke or self._is_damaged
        self.repairs.add("damaged" if is_damage else "hole")
        if is_damage:
            self.broken_s += gap_s
        return gap_s

    def doubt(self, end_s: float | None) -> None:
        """Holes that make the recording longer than ``end_s``, the end that its container announces, may be none."""
        if end_s is not None:
            too_long_s = self.at_s + self._first_s - end_s
            self._end_s = end_s
            self.was_misled |= too_long_s > _MOST_TOLERANCE_S and self._filled_s >= too_long_s - _MOST_TOLERANCE_S

    @property
    def is_too_long(self) -> bool:
        """Whether holes make the recording longer than its container says, though doubtful times were put right."""
        too_long_s = self.at_s + self._first_s - self._end_s
        return self._trusted is not None and too_long_s > _CONTRADICTION_S and self._filled_s > 0

    def finish(self, end_s: float | None, *, is_cut: bool) -> None:
        """After the last block: the end that the container announces on its clock, and whether the bytes for it are missing."""
        missing_s = self._owed_s
        if end_s is not None:
            missing_s = max(missing_s, end_s - self._first_s - self.at_s)
        tolerance_s = _EXACT_S if self._is_exact else max(2 * self._block_s, _MOST_TOLERANCE_S)
        if missing_s <= (0.0 if self._owed_s else tolerance_s):
            return
        self.lost_s += missing_s
        if is_cut:
            self.repairs.add("cut_end")
        else:
            self.repairs.add("damaged")
            self.broken_s += missing_s

    def drop_owed(self) -> bool:
        """Nothing is missing behind the last block after all; whether something was thought to be."""
        owed, self._owed_s, self._broke = self._owed_s > 0, 0.0, False
        return owed

    def leave_unknown(self) -> None:
        """Something may be missing, and nothing says how much."""
        self.is_unknown = True

    def miss_end(self, seconds: float) -> None:
        """So much sound behind the last block cannot be decoded."""
        self.lost_s += seconds
        self.broken_s += seconds
        self.repairs.add("damaged")

    @property
    def is_broken(self) -> bool:
        """Whether packets since the last block could not be decoded."""
        return self._broke

    @property
    def owed_s(self) -> float:
        """What a reader without a clock has missed since the last block."""
        return self._owed_s

    @property
    def account(self) -> Account:
        return Account(None if self.is_unknown else self.lost_s, tuple(sorted(self.repairs)), self.broken_s)


def make_silence(seconds: float, rate_hz: int, channels: int) -> Iterator[np.ndarray]:
    """float32 blocks ``(channels, frames)`` of zeros; hours of silence are never in memory at once."""
    frames = round(seconds * rate_hz)
    while frames > 0:
        step = min(frames, _SILENCE_FRAMES)
        yield np.zeros((channels, step), dtype=np.float32)
        frames -= step
