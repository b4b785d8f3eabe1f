"""A sound that tells where in it one is, and where its pieces lie in what was decoded from a damaged file.

Its pitch glides at random, so each tenth of a second is like no other: a piece that is found in decoded samples says at which
second of the original it was. That holds for all codecs of the tests, of which Speex is the worst (correlation above 0.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

RATE_HZ = 16_000
PIECE_S = 0.1
_KNOT_S = 0.08
_SAME = 0.7  # least correlation of a piece with its own place; beside it, pieces of this sound have 0.3 at most
_SAME_ELSEWHERE = 0.8  # more, as there are many more places
_SILENT = 1e-3  # root mean square


def make_coded_sound(seconds: float, seed: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    """float64 ``(samples,)``, at most 0.62: one gliding tone of 300 to 3,200 Hz with a little noise. Rates only resample it."""
    random = np.random.default_rng(seed)
    knots = np.arange(0, seconds + 2 * _KNOT_S, _KNOT_S)
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch = np.interp(time, knots, random.uniform(300, 3200, len(knots)))
    loudness = np.interp(time, knots, random.uniform(0.15, 0.6, len(knots)))
    sound = loudness * np.sin(2 * np.pi * np.cumsum(pitch) / RATE_HZ) + random.normal(0, 0.003, len(time))
    return sound if rate_hz == RATE_HZ else np.asarray(soxr.resample(sound, RATE_HZ, rate_hz)).clip(-0.99, 0.99)


@dataclass(frozen=True)
class Placement:
    """Seconds of a known sound that must be there: in their place, elsewhere (``moved_s``), nowhere (``missing_s``).

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
    pieces, places = _cut(known, size), _surroundings(decoded, len(known) // size, size, slack)
    is_sound = np.sqrt(np.mean(pieces**2, axis=1)) > _SILENT if len(pieces) else np.zeros(0, bool)
    in_place = _best(pieces, places) > _SAME
    wanted = is_sound & ~_touches(unsure, len(pieces))
    lost = np.flatnonzero(wanted & ~in_place)
    elsewhere = {int(index) for index in lost if _find(pieces[index], decoded)[1] > _SAME_ELSEWHERE}

    heard = _cut(decoded, size)
    is_heard = np.sqrt(np.mean(heard**2, axis=1)) > _SILENT if len(heard) else np.zeros(0, bool)
    strange = np.flatnonzero(is_heard & ~(_best(heard, _surroundings(known, len(heard), size, slack)) > _SAME))
    repeated = spurious = 0
    for index in strange:
        at, likeness = _find(heard[index], known)
        if likeness <= _SAME_ELSEWHERE:
            spurious += 1
        elif in_place[min(round(at / size), len(in_place) - 1)]:
            repeated += 1
    return Placement(
        found_s=round(PIECE_S * int(np.count_nonzero(wanted & in_place)), 3),
        moved_s=round(PIECE_S * len(elsewhere), 3),
        missing_s=round(PIECE_S * (len(lost) - len(elsewhere)), 3),
        repeated_s=round(PIECE_S * repeated, 3),
        spurious_s=round(PIECE_S * spurious, 3),
    )


def _cut(sound: np.ndarray, size: int) -> np.ndarray:
    """``(pieces, size)``; what is left at the end is left out."""
    return np.asarray(sound[: len(sound) // size * size], np.float64).reshape(-1, size)


def _surroundings(sound: np.ndarray, pieces: int, size: int, slack: int) -> np.ndarray:
    """``(pieces, size + 2 × slack)``: the stretch of ``sound`` that each piece may lie in, with zeros beyond its ends."""
    length = pieces * size + 2 * slack
    padded = np.zeros(max(length, 1))
    part = sound[: length - slack]
    padded[slack : slack + len(part)] = part
    if not pieces:
        return np.zeros((0, size + 2 * slack))
    return np.lib.stride_tricks.sliding_window_view(padded, size + 2 * slack)[::size][:pieces]


def _best(pieces: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The highest normalised correlation of each piece with its own stretch, ``(pieces,)``."""
    if not len(pieces):
        return np.zeros(0)
    size, width = pieces.shape[1], places.shape[1]
    fft = 1 << (width - 1).bit_length()
    products = np.fft.irfft(np.fft.rfft(places, fft) * np.conj(np.fft.rfft(pieces, fft)), fft)[:, : width - size + 1]
    power = np.cumsum(np.pad(places**2, ((0, 0), (1, 0))), axis=1)
    energy = (power[:, size:] - power[:, :-size]) * np.sum(pieces**2, axis=1, keepdims=True)
    return np.max(products / np.sqrt(np.maximum(energy, 1e-6)), axis=1)


def _find(piece: np.ndarray, sound: np.ndarray) -> tuple[int, float]:
    """Where in all of ``sound`` the piece fits best, and how well."""
    if len(sound) < len(piece):
        return 0, 0.0
    size, fft = len(piece), 1 << (len(sound) - 1).bit_length()
    products = np.fft.irfft(np.fft.rfft(sound, fft) * np.conj(np.fft.rfft(piece, fft)), fft)[: len(sound) - size + 1]
    power = np.cumsum(np.pad(np.asarray(sound, np.float64) ** 2, (1, 0)))
    likeness = products / np.sqrt(np.maximum((power[size:] - power[:-size]) * np.sum(piece**2), 1e-6))
    at = int(np.argmax(likeness))
    return at, float(likeness[at])


def _touches(intervals: Sequence[tuple[float, float]], pieces: int) -> np.ndarray:
    starts = PIECE_S * np.arange(pieces)
    touched = np.zeros(pieces, bool)
    for start_s, end_s in intervals:
        touched |= (starts < end_s) & (starts + PIECE_S > start_s)
    return touched
