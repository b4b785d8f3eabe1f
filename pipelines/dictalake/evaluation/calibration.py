"""Is a confidence of 0.9 right nine times in ten? Reliability, calibration error, and the fit that corrects it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from scipy.optimize import minimize

from dictalake.config.sections import Confidence

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Words whose confidence lies in ``[low, high)``: their number, their mean confidence, and the share that is right."""

    low: float
    high: float
    words: int
    confidence: float
    accuracy: float


def label_words(reference: str, words: Sequence[str], normalise: Callable[[str], str]) -> list[bool | None]:
    """Whether each of the hypothesis' ``words`` is right: what ``normalise`` leaves of it is aligned to equal words of the
    reference. None for a word of which nothing is left.
    """
    tokens = [(token, index) for index, word in enumerate(words) for token in normalise(word).split()]
    labels: list[bool | None] = [None] * len(words)
    spoken = normalise(reference).split()
    if not tokens:
        return labels
    right = np.zeros(len(tokens), dtype=bool)
    if spoken:
        for chunk in jiwer.process_words(" ".join(spoken), " ".join(token for token, _ in tokens)).alignments[0]:
            if chunk.type == "equal":
                right[chunk.hyp_start_idx : chunk.hyp_end_idx] = True
    for (_, index), is_right in zip(tokens, right, strict=True):
        labels[index] = bool(is_right) and labels[index] is not False
    return labels


def measure_reliability(confidence: np.ndarray, is_right: np.ndarray, bins: int = BINS) -> list[ReliabilityBin]:
    """Equal-width bins over 0–1, without the empty ones. Both arrays are ``(words,)``: floats and bools."""
    of_word = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            i / bins,
            (i + 1) / bins,
            int((of_word == i).sum()),
            float(confidence[of_word == i].mean()),
            float(is_right[of_word == i].mean()),
        )
        for i in range(bins)
        if (of_word == i).any()
    ]


def expected_calibration_error(confidence: np.ndarray, is_right: np.ndarray, bins: int = BINS) -> float:
    """The mean over words of the distance between a bin's confidence and its accuracy (Guo et al. 2017); NaN without words."""
    if len(confidence) == 0:
        return float("nan")
    found = measure_reliability(confidence, is_right, bins)
    return sum(one.words * abs(one.confidence - one.accuracy) for one in found) / len(confidence)


def area_under_roc(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """The chance that a right word has a higher confidence than a wrong one (ties count half). NaN if either is missing."""
    from scipy.stats import rankdata

    right = int(is_right.sum())
    wrong = len(is_right) - right
    if right == 0 or wrong == 0:
        return float("nan")
    return float((rankdata(confidence)[is_right].sum() - right * (right + 1) / 2) / (right * wrong))


def apply_confidence(evidence: np.ndarray, calibration: Confidence) -> np.ndarray:
    """Confidence of words from their evidence ``(words, 2)``: the logits of the acoustics and of the n-best support."""
    log_odds = (evidence[:, 0] + calibration.nbest_weight * evidence[:, 1]) / calibration.temperature + calibration.bias
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))


def fit_confidence(evidence: np.ndarray, is_right: np.ndarray) -> Confidence:
    """The temperature, bias and n-best weight with the lowest negative log-likelihood on labelled words (Platt 1999).

    A weak pull towards no calibration keeps a handful of words from deciding the fit alone.
    """

    def loss(values: np.ndarray) -> float:
        weight, support, bias = values
        log_odds = weight * evidence[:, 0] + support * evidence[:, 1] + bias
        signed = np.where(is_right, -log_odds, log_odds)
        return float(np.logaddexp(0, signed).sum() + 0.5 * ((weight - 1) ** 2 + support**2 + bias**2))

    fitted = minimize(loss, np.array([1.0, 0.0, 0.0]), method="L-BFGS-B", bounds=[(0.01, 50), (0, 50), (-20, 20)]).x
    weight, support, bias = (float(value) for value in fitted)
    return Confidence(temperature=1 / weight, bias=bias, nbest_weight=min(10.0, support / weight))
