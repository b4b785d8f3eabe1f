"""How certain is a rate? Bootstrap intervals over recordings, for a rate and for the difference of two rates (Bisani and Ney
2004), and an approximate permutation test of that difference (Noreen 1989; paired, for recognisers, Gillick and Cox 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_SEED = 20040517
_MOST_DRAWN = 4_000_000  # numbers drawn at once, so that many recordings do not fill memory


@dataclass(frozen=True)
class Interval:
    """A rate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """``delta`` is the rate of the second system minus that of the first, with its 95 % interval. ``p_value`` is two-sided: how
    often the difference would be as large if a coin decided, for each recording, which system made which transcript.
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
    """Compares the errors of two systems, ``(recordings,)`` each. Drawn in pairs: hard recordings are hard for both."""
    if words.sum() == 0:
        return Comparison(Interval(float("nan"), float("nan"), float("nan")), float("nan"))
    sums = _resample(np.stack([second - first, words]), resamples)
    deltas = sums[0] / np.where(sums[1] > 0, sums[1], np.nan)
    value = float((second - first).sum() / words.sum())
    low, high = np.nanpercentile(deltas, [2.5, 97.5])
    return Comparison(Interval(value, min(float(low), value), max(float(high), value)), _permute(second - first, resamples))


def _permute(differences: np.ndarray, rounds: int) -> float:
    """Two-sided p of the sum of ``(recordings,)`` integers under random signs. The observed sum counts as one more round, so p
    is never 0. Unlike the bootstrap it claims nothing about a handful of recordings, where nothing can be known.
    """
    rng = np.random.default_rng(_SEED)
    there = differences[differences != 0]
    as_large = 0
    for size in _split(rounds, len(there)):
        signs = 2 * rng.integers(0, 2, (size, len(there)), dtype=np.int8) - 1
        as_large += int(np.sum(np.abs(signs @ there) >= abs(there.sum())))
    return (as_large + 1) / (rounds + 1)


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
