"""How sure is a rate? Bootstrap intervals over recordings, and paired comparison of two systems (Bisani and Ney 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_SEED = 20040517
_CHUNK = 200


@dataclass(frozen=True)
class Interval:
    """A rate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """``delta`` is the rate of the second system less that of the first, with its 95 % interval. ``p_value`` is two-sided: how
    often resampling alone turns the sign.
    """

    delta: Interval
    p_value: float


def bootstrap_rate(errors: np.ndarray, words: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """Of the rate sum(errors) / sum(words), both ``(recordings,)``: recordings are drawn anew, percentiles taken.

    NaN where there is no word. Words of one recording stand or fall together, so that intervals over words would be too narrow.
    """
    if words.sum() == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    rates = _resample(np.stack([errors, words]), resamples)
    low, high = np.nanpercentile(rates[0] / np.where(rates[1] > 0, rates[1], np.nan), [2.5, 97.5])
    value = float(errors.sum() / words.sum())
    return Interval(value, min(float(low), value), max(float(high), value))


def compare_rates(first: np.ndarray, second: np.ndarray, words: np.ndarray, resamples: int = RESAMPLES) -> Comparison:
    """Errors of two systems on the same recordings, ``(recordings,)`` each: drawn in pairs, for what is hard is so for both."""
    if words.sum() == 0:
        return Comparison(Interval(float("nan"), float("nan"), float("nan")), float("nan"))
    sums = _resample(np.stack([second - first, words]), resamples)
    deltas = sums[0] / np.where(sums[1] > 0, sums[1], np.nan)
    value = float((second - first).sum() / words.sum())
    low, high = np.nanpercentile(deltas, [2.5, 97.5])
    other_side = min(np.mean(deltas <= 0), np.mean(deltas >= 0))
    p_value = min(1.0, 2 * (float(other_side) * resamples + 1) / (resamples + 1))
    return Comparison(Interval(value, min(float(low), value), max(float(high), value)), p_value)


def _resample(columns: np.ndarray, resamples: int) -> np.ndarray:
    """Sums ``(columns, resamples)`` over recordings drawn with replacement; the same draws for the same number of them."""
    rng = np.random.default_rng(_SEED)
    count = columns.shape[1]
    sums = []
    for start in range(0, resamples, _CHUNK):
        drawn = rng.integers(0, count, (min(_CHUNK, resamples - start), count))
        sums.append(columns[:, drawn].sum(axis=2))
    return np.concatenate(sums, axis=1)
