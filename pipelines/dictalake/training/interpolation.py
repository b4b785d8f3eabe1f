"""Interpolates two language models linearly, and finds the weight that suits a text best.

p(w|h) = (1 - λ)·p_user(w|h) + λ·p_base(w|h), after Jelinek and Mercer (1980), "Interpolated estimation of Markov source
parameters from sparse data". The mixture is again one back-off model, as ``ngram -mix-lm`` of SRILM makes it (Stolcke 2002).
It lists the n-grams of both with exactly that p; new back-off weights make each history sum to one. For an n-gram that
neither lists, its back-off estimate is near the mixture but not equal to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import kenlm
import numpy as np

from dictalake.errors import ConfigError
from dictalake.training.arpa import Arpa, BackoffModel, common_levels, spread, with_backoffs

LEAST_WEIGHT = 0.001  # a weight of 0 or 1 would be one model alone
_EM_ROUNDS = 500
_EM_STEP = 1e-6


def interpolate(user: Arpa, base: Arpa, base_weight: float) -> BackoffModel:
    """(1 - ``base_weight``)·``user`` + ``base_weight``·``base``. Orders may differ; the longer one is kept.

    Raises ConfigError for a weight outside (0, 1).
    """
    if not 0 < base_weight < 1:
        raise ConfigError(f"--base-weight {base_weight:g}: must be above 0 and below 1, or auto")
    words = list(dict.fromkeys([*user.words, *base.words]))
    levels = common_levels(
        [_renumber(model, words) for model in (user, base)], max(len(user.grams), len(base.grams)), len(words)
    )
    of_user, of_base = (spread(model, words, levels).p for model in (user, base))
    return with_backoffs(
        words, levels, [(1 - base_weight) * u + base_weight * b for u, b in zip(of_user, of_base, strict=True)]
    )


def alone(model: Arpa) -> BackoffModel:
    """One model in the form that can be pruned and written."""
    levels = common_levels([model.grams], len(model.grams), len(model.words))
    return with_backoffs(model.words, levels, spread(model, model.words, levels).p)


def _renumber(model: Arpa, words: Sequence[str]) -> list[np.ndarray]:
    place = {word: i for i, word in enumerate(words)}
    translate = np.array([place[word] for word in model.words])
    return [translate[grams] for grams in model.grams]


def token_probabilities(model: kenlm.Model, lines: Sequence[str]) -> np.ndarray:
    """p of each piece of ``lines`` and of the end of each line, ``(tokens,)``; 0 for an unknown piece."""
    scores = [score for line in lines for score in model.full_scores(line, bos=True, eos=True)]
    return np.array([0.0 if unknown else 10.0**log10_p for log10_p, _, unknown in scores])


def best_base_weight(user_p: np.ndarray, base_p: np.ndarray) -> float:
    """The λ under which a text is most likely, given both models' p of its tokens, ``(tokens,)`` each.

    Expectation maximisation sets λ to the base's mean share of each token's probability. The likelihood is concave in λ, so
    this ends at the best one, limited to 0.001 to 0.999. Tokens that neither model knows do not count. Raises ConfigError if
    none is left.
    """
    known = (user_p > 0) | (base_p > 0)
    if not known.any():
        raise ConfigError("--dev: neither model knows a single piece of this text, so no weight can be found on it")
    user_p, base_p = user_p[known], base_p[known]
    weight = 0.5
    for _ in range(_EM_ROUNDS):
        from_base = weight * base_p
        updated = float(np.mean(from_base / (from_base + (1 - weight) * user_p)))
        updated = min(max(updated, LEAST_WEIGHT), 1 - LEAST_WEIGHT)
        if abs(updated - weight) < _EM_STEP:
            return updated
        weight = updated
    return weight
