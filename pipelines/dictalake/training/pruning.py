"""Entropy pruning: removes n-grams whose removal hardly changes the model.

It follows Stolcke (1998), "Entropy-based pruning of backoff language models". For each n-gram h w longer than a word it
computes the relative entropy between the model with and without it,
D = -p(h)·{p(w|h)·[log p(w|h') + log α'(h) - log p(w|h)] + (log α'(h) - log α(h))·(1 - Σ p(w_i|h))}.
The n-gram is removed if perplexity rises by less than the threshold: e^D - 1 < threshold. p(h) is the frequency of h in text
that the model makes. Each n-gram is judged as if it were the only one to be removed.

An n-gram also stays if it is the history or the suffix of one that stays. The file format needs the histories, and KenLM
would add the suffixes again.
"""

from __future__ import annotations

import numpy as np

from dictalake.errors import ConfigError
from dictalake.training.arpa import BEGIN, END, BackoffModel, common_levels, find_rows, with_backoffs

_MOST_STEPS = 2000
_UNFINISHED = 1e-3


def prune(model: BackoffModel, threshold: float) -> BackoffModel:
    """``model`` without the n-grams that change its perplexity by less than the share ``threshold`` (1e-8 mild, 1e-6 strong).

    Raises ConfigError unless ``threshold`` is above 0 and below 1, for a model without ``<s>`` or ``</s>``, and if no n-gram
    longer than a word is left.
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"--prune-threshold {threshold:g}: must be above 0 and below 1 (1e-8 is mild, 1e-6 strong)")
    if not {BEGIN, END} <= set(model.words):
        raise ConfigError("--prune-threshold: needs a model that knows <s> and </s>, where texts begin and end")
    p_history = history_probabilities(model)
    orders = range(2, len(model.levels) + 1)
    kept = [np.ones(len(model.levels[0].grams), bool)]
    kept += [np.expm1(relative_entropies(model, n, p_history[n - 2])) >= threshold for n in orders]
    levels = common_levels([[level.grams[k] for level, k in zip(model.levels, kept, strict=True)]], len(kept), len(model.words))
    while not len(levels[-1].grams):
        levels = levels[:-1]
    if len(levels) < 2:
        raise ConfigError(f"--prune-threshold {threshold:g}: leaves single words only; take a smaller one")
    p = [model.p[n][find_rows(model.levels, level.grams)] for n, level in enumerate(levels)]
    return with_backoffs(model.words, levels, p)


def history_probabilities(model: BackoffModel) -> list[np.ndarray]:
    """p(h) for all levels but the last, ``(count,)`` each: how often h precedes a word in text that the model makes.

    The text begins at ``<s>``, and the simulation ends when all but a thousandth of it has reached ``</s>``. Its states are
    the n-grams that can be histories. The usual product of conditional probabilities is no such frequency under Kneser-Ney
    smoothing, whose shorter n-grams say in how many places a word occurs, not how often (Chelba et al. 2010, "Study on
    interaction between entropy pruning and Kneser-Ney smoothing").
    """
    levels, place = model.levels, {word: i for i, word in enumerate(model.words)}
    at = [np.zeros(len(level.grams)) for level in levels[:-1]]
    at[0][place[BEGIN]] = 1.0
    ended = [level.grams[:, -1] == place[END] for level in levels[:-1]]
    visits = [np.zeros(len(level.grams)) for level in levels[:-1]]
    for _ in range(_MOST_STEPS):
        for total, now in zip(visits, at, strict=True):
            total += now
        at = _step(model, at)
        for now, over in zip(at, ended, strict=True):
            now[over] = 0.0
        if sum(float(now.sum()) for now in at) < _UNFINISHED:
            break
    for n in range(len(visits) - 1, 0, -1):  # a text at "a b" is at "b" too
        visits[n - 1] += np.bincount(levels[n].suffix, visits[n], len(visits[n - 1]))
    return [total / visits[0].sum() for total in visits]


def _step(model: BackoffModel, at: list[np.ndarray]) -> list[np.ndarray]:
    """The probability of being at each history after one more word; ``at`` is that before it."""
    levels, order = model.levels, len(model.levels)
    asked = [now.copy() for now in at]  # probability of drawing a word here, also after a back-off
    for n in range(order - 2, 0, -1):
        asked[n - 1] += np.bincount(levels[n].suffix, model.backoff[n] * asked[n], len(asked[n - 1]))
    everyone = float((model.backoff[0] * asked[0]).sum())
    after = [np.zeros_like(now) for now in at]
    listed_longer: np.ndarray = np.zeros(len(levels[-1].grams))
    for n in range(order, 0, -1):
        level = levels[n - 1]
        asking = asked[n - 2][level.history] if n > 1 else np.full(len(level.grams), everyone)
        # A text that backed off to here cannot take a word that its longer history lists.
        flow = np.maximum(asking - listed_longer, 0.0) * model.p[n - 1]
        if n == order:
            after[n - 2] += np.bincount(level.suffix, flow, len(after[n - 2]))
        else:
            after[n - 1] += flow
        if n > 1:
            backing_off = (model.backoff[n - 2] * asked[n - 2])[level.history]
            listed_longer = np.bincount(level.suffix, backing_off, len(levels[n - 2].grams))
    return after


def relative_entropies(model: BackoffModel, n: int, p_history: np.ndarray) -> np.ndarray:
    """D in nats of each n-gram of length ``n``, ``(count,)``: what the model loses if only that one is removed."""
    level, p = model.levels[n - 1], model.p[n - 1]
    below = model.p[n - 2][level.suffix]
    histories = len(model.levels[n - 2].grams)
    left = np.maximum(1 - np.bincount(level.history, p, histories), 0.0)
    left_below = np.maximum(1 - np.bincount(level.history, below, histories), 1e-12)
    backoff = model.backoff[n - 2][level.history]
    left, left_below = left[level.history], left_below[level.history]
    tiny = np.finfo(float).tiny
    log_new_backoff = np.log((left + p + tiny) / (left_below + below))
    change = p * (np.log(below + tiny) + log_new_backoff - np.log(p + tiny)) + left * (log_new_backoff - np.log(backoff))
    return np.asarray(np.maximum(-p_history[level.history] * change, 0.0))
