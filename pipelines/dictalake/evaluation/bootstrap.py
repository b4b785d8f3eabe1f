"""How sure is a rate? Bootstrap intervals over recordings (Bisani and Ney 2004). How sure is the difference of two systems? An
approximate permutation test (Noreen 1989; for recognisers, in pairs, Gillick and Cox 1989), and the interval of that same test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_SEED = 20040517
_ALPHA = 0.05
_MOST_DRAWN = 4_000_000  # numbers drawn at once, so that many recordings do not fill memory


@dataclass(frozen=True)
class Interval:
    """A rate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """``delta`` is the rate of the second system less that of the first, with its 95 % interval, which is infinite where so few
    recordings can show nothing. ``p_value`` is two-sided: how often the difference would be as large if a coin said, of each
    recording, which system its two transcripts are from. Both are of one test: p is below 5 % exactly if 0 is outside.
    """

    delta: Interval
    p_value: float


def bootstrap_rate(errors: np.ndarray, words: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """The rate sum(errors) / sum(words), both ``(recordings,)``, with the percentiles of its resamples over recordings.

    NaN where there is no word. Errors within one recording depend on each other, so intervals over words would be too narrow.
    """
    if words.sum() == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    rates = _resample(np.stack([errors, words]), resamples)
    low, high = np.nanpercentile(rates[0] / np.where(rates[1] > 0, rates[1], np.nan), [2.5, 97.5])
    value = float(errors.sum() / words.sum())
    return Interval(value, min(float(low), value), max(float(high), value))


def compare_rates(first: np.ndarray, second: np.ndarray, words: np.ndarray, resamples: int = RESAMPLES) -> Comparison:
    """Errors of two systems on the same recordings, ``(recordings,)`` each: in pairs, for what is hard is so for both."""
    if words.sum() == 0:
        return Comparison(Interval(float("nan"), float("nan"), float("nan")), float("nan"))
    return _test_by_permutation(second - first, words, resamples)


def _test_by_permutation(differences: np.ndarray, words: np.ndarray, rounds: int) -> Comparison:
    """The test is Noreen's: where the systems differ by d, the signs of ``differences - d * words``, ``(recordings,)``, are a
    coin's. p is that of d = 0; the interval holds every d with p above 5 %, so that it has 0 in it exactly if p is.

    p counts the sums that are as large as the one that is there, which counts as one more round, so that p is never 0. Unlike
    the bootstrap it finds nothing in a handful of recordings, where nothing can be found: the interval is open then (infinite).
    Of each round it is known up to which d its sum is as large, so nothing has to be searched.
    """
    rng = np.random.default_rng(_SEED)
    total, all_words, count = float(differences.sum()), float(words.sum()), len(differences)
    parts = []
    for size in _split(rounds, count):
        signs = 2 * rng.integers(0, 2, (size, count), dtype=np.int8) - 1
        parts.append(np.stack([signs @ differences, signs @ words]).astype(float))
    of_signs, words_of_signs = np.concatenate(parts, axis=1)
    as_large = int(np.sum(np.abs(of_signs) >= abs(total)))
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.stack(
            [(total + of_signs) / (all_words + words_of_signs), (total - of_signs) / (all_words - words_of_signs)]
        )
    value = total / all_words
    # All signs equal: the sum is as large whatever d is.
    highest = np.where(np.isfinite(bounds), bounds, np.inf).max(axis=0)
    lowest = np.where(np.isfinite(bounds), bounds, -np.inf).min(axis=0)
    beyond = math.floor(_ALPHA * (rounds + 1))  # with so many rounds as large, p is above 5 % for the first time
    if beyond < 1:
        return Comparison(Interval(value, -math.inf, math.inf), (as_large + 1) / (rounds + 1))
    high = float(np.sort(highest)[::-1][beyond - 1])
    low = float(np.sort(lowest)[beyond - 1])
    return Comparison(Interval(value, min(low, value), max(high, value)), (as_large + 1) / (rounds + 1))


def _resample(columns: np.ndarray, resamples: int) -> np.ndarray:
    """Sums ``(columns, resamples)`` over recordings drawn with replacement. Equal numbers of recordings get equal draws."""
    rng = np.random.default_rng(_SEED)
    count = columns.shape[1]
    sums = [columns[:, rng.integers(0, count, (size, count))].sum(axis=2) for size in _split(resamples, count)]
    return np.concatenate(sums, axis=1)


def _split(rounds: int, count: int) -> list[int]:
    """Splits ``rounds`` into parts that draw at most ``_MOST_DRAWN`` numbers each, at ``count`` numbers a round."""
    size = max(1, min(rounds, _MOST_DRAWN // max(count, 1)))
    return [min(size, rounds - start) for start in range(0, rounds, size)]
