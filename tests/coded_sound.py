"""A sound that tells where in it one is, and where its pieces lie in what was decoded from a damaged file.

Its pitch glides at random, so each tenth of a second is like no other: a piece that is found in decoded samples says at which
second of the original it was. That holds for all codecs of the tests, of which Speex is the worst (correlation above 0.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from scipy import fft

RATE_HZ = 16_000
PIECE_S = 0.1
_KNOT_S = 0.08
_SAME = 0.7  # least correlation of a piece with its own place; beside it, pieces of this sound have 0.3 at most
_SAME_ELSEWHERE = 0.8  # more, as there are many more places
_SILENT = 1e-3  # root mean square


def make_coded_sound(seconds: float, seed: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    """float64 ``(samples,)``, at most 0.4: one gliding tone of 300 to 3,200 Hz with a little noise. Rates only resample it."""
    random = np.random.default_rng(seed)
    knots = np.arange(0, seconds + 2 * _KNOT_S, _KNOT_S)
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch = np.interp(time, knots, random.uniform(300, 3200, len(knots)))
    loudness = np.interp(time, knots, random.uniform(0.1, 0.35, len(knots)))
    sound = loudness * np.sin(2 * np.pi * np.cumsum(pitch) / RATE_HZ) + random.normal(0, 0.01, len(time))
    return sound if rate_hz == RATE_HZ else np.asarray(soxr.resample(sound, RATE_HZ, rate_hz)).clip(-0.99, 0.99)


@dataclass(frozen=True)
class Placement:
    """Seconds of a known sound: ``found_s`` are in their place; of those that must be there, ``moved_s`` are elsewhere and
    ``missing_s`` nowhere.

    ``repeated_s`` are seconds of the decoded sound that are there once more, at another place. ``spurious_s`` are those that
    are neither silence nor the known sound.
    """

    found_s: float
    moved_s: float
    missing_s: float
    repeated_s: float
    spurious_s: float


def place(
    decoded: np.ndarray,
    known: np.ndarray,
    unsure: Sequence[tuple[float, float]] = (),
    within_s: float = 0.12,
    rate_hz: int = RATE_HZ,
) -> Placement:
    """Where the pieces of ``known`` lie in ``decoded``, both ``(samples,)`` at ``rate_hz``.

    ``unsure`` are the intervals of ``known`` in seconds that need not be there: the damage and its surroundings. A piece is in
    its place if it lies at most ``within_s`` beside it.
    """
    size, slack = round(PIECE_S * rate_hz), round(within_s * rate_hz)
    decoded, known = np.asarray(decoded, np.float32), np.asarray(known, np.float32)
    pieces = _cut(known, size)
    is_sound = np.sqrt(np.mean(pieces**2, axis=1)) > _SILENT
    in_place = _are_in_place(pieces, decoded, slack)
    wanted = is_sound & ~_touches(unsure, len(pieces))
    lost = np.flatnonzero(wanted & ~in_place)
    in_decoded = _Everywhere(decoded, size) if len(lost) else None
    elsewhere = {int(index) for index in lost if in_decoded and in_decoded.find(pieces[index])[1] > _SAME_ELSEWHERE}

    heard = _cut(decoded, size)
    is_heard = np.sqrt(np.mean(heard**2, axis=1)) > _SILENT
    strange = np.flatnonzero(is_heard & ~_are_in_place(heard, known, slack))
    in_known = _Everywhere(known, size)
    repeated = spurious = 0
    for index in strange:
        at, likeness = in_known.find(heard[index])
        if likeness <= _SAME_ELSEWHERE:
            spurious += 1
        elif in_place[min(round(at / size), len(in_place) - 1)]:
            repeated += 1
    return Placement(
        found_s=round(PIECE_S * int(np.count_nonzero(is_sound & in_place)), 3),
        moved_s=round(PIECE_S * len(elsewhere), 3),
        missing_s=round(PIECE_S * (len(lost) - len(elsewhere)), 3),
        repeated_s=round(PIECE_S * repeated, 3),
        spurious_s=round(PIECE_S * spurious, 3),
    )


def _cut(sound: np.ndarray, size: int) -> np.ndarray:
    """``(pieces, size)``; what is left at the end is left out."""
    return sound[: len(sound) // size * size].reshape(-1, size)


def _are_in_place(pieces: np.ndarray, sound: np.ndarray, slack: int) -> np.ndarray:
    """Whether each piece is in ``sound`` at most ``slack`` samples beside its place, ``(pieces,)``."""
    size = pieces.shape[1]
    found = np.zeros(len(pieces), bool)
    if not len(pieces):
        return found
    padded = np.zeros(len(pieces) * size + 2 * slack, np.float32)
    part = sound[: len(padded) - slack]
    padded[slack : slack + len(part)] = part
    places = np.lib.stride_tricks.sliding_window_view(padded, size + 2 * slack)[::size]
    lag = slack
    for index, (piece, place) in enumerate(zip(pieces, places, strict=True)):
        straight = place[lag : lag + size]  # where the last one was: a codec's delay is the same for all
        found[index] = _likeness(piece, straight) > _SAME
        if not found[index] and np.any(place):
            at, likeness = _Everywhere(place, size).find(piece)
            found[index] = likeness > _SAME
            lag = at if found[index] else lag
    return found


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.dot(one, other) / np.sqrt(max(np.dot(one, one) * np.dot(other, other), 1e-6)))


class _Everywhere:
    """Finds pieces in all of a sound."""

    def __init__(self, sound: np.ndarray, size: int) -> None:
        self._places = len(sound) - size + 1
        self._length = fft.next_fast_len(max(len(sound), size), real=True)
        self._spectrum = fft.rfft(sound, self._length)
        power = np.cumsum(np.pad(np.asarray(sound, np.float64) ** 2, (1, 0)))
        self._energy = power[size:] - power[:-size]

    def find(self, piece: np.ndarray) -> tuple[int, float]:
        """Where it fits best, and how well."""
        if self._places < 1:
            return 0, 0.0
        products = fft.irfft(self._spectrum * np.conj(fft.rfft(piece, self._length)), self._length)[: self._places]
        likeness = products / np.sqrt(np.maximum(self._energy * np.sum(piece**2), 1e-6))
        at = int(np.argmax(likeness))
        return at, float(likeness[at])


def _touches(intervals: Sequence[tuple[float, float]], pieces: int) -> np.ndarray:
    starts = PIECE_S * np.arange(pieces)
    touched = np.zeros(pieces, bool)
    for start_s, end_s in intervals:
        touched |= (starts < end_s) & (starts + PIECE_S > start_s)
    return touched
