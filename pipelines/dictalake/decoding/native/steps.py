"""One step of the language model and of the hotwords: from a state by a word to the next state. Compiled."""

from __future__ import annotations

import math

import numpy as np

from dictalake.decoding.native.compiled import compiled_part
from dictalake.decoding.native.hash_table import find_place
from dictalake.decoding.native.kenlm_lookup import look_up
from dictalake.decoding.native.tables import ARRAYS, MAPPED, NO_LM, LmTables, Records

LN_10 = 1.0 / math.log10(math.e)  # pyctcdecode's, to the last bit


@compiled_part
def advance_ngram(ngrams: Records, contexts: Records, state: int, word: int) -> tuple[int, float]:
    """The next state, and log10 P(``word`` | ``state``) with back-off; ``word`` is one of the model's."""
    logp, found = 0.0, int(1 + word)
    while state != 0:
        low, end = int(contexts[state].first), int(contexts[state + 1].first)
        high = end
        while low < high:
            middle = (low + high) // 2
            if ngrams[middle].word < word:
                low = middle + 1
            else:
                high = middle
        if low < end and ngrams[low].word == word:
            found = low
            break
        logp += contexts[state].backoff
        state = int(ngrams[state].link)
    logp += ngrams[found].logp
    # The last context is only the end of the one before.
    return (found if found < len(contexts) - 1 else int(ngrams[found].link)), logp


@compiled_part
def score_word(
    state: int, word: int, settings: Records, words: Records, lm: LmTables, progress: Records, missing: np.ndarray
) -> tuple[int, float, int]:
    """The next state and log10 P(``word`` | ``state``); then 0, with an entry in ``missing``, where KenLM must be asked."""
    ngrams, contexts, table, data, levels, states, filled = lm
    if settings[0].lm_kind == ARRAYS:
        following, logp = advance_ngram(ngrams, contexts, state, words[word].lm_id)
        return following, logp, 1
    key = state * len(words) + word
    place, known = find_place(table, key), 1
    if table[place].key == -1:
        if settings[0].lm_kind == MAPPED:
            place = look_up(data, levels, states, filled, table, state, words[word].lm_id, key)
        else:
            note_missing(progress, missing, 0, state, word)
            known = 0
    return table[place].next, table[place].value, known


@compiled_part
def complete_words(
    is_end: bool,
    settings: Records,
    words: Records,
    lm: LmTables,
    hot_steps: Records,
    bonuses: Records,
    nodes: Records,
    beams: Records,
    progress: Records,
    missing: np.ndarray,
) -> None:
    """Scores the last word of each beam's text, and at the end of a recording also that it ends.

    There is an entry in ``missing`` where a table must be filled first.
    """
    has_lm, has_hotwords = settings[0].lm_kind != NO_LM, settings[0].has_hotwords == 1
    weight = settings[0].lm_weight
    for beam in range(progress[0].beams):
        node = nodes[beams[beam].node]
        if node.done == 0:
            known = 1
            if has_lm:
                # ``0 +`` makes int64 of it, as everywhere else: numba compiles a function once for each type.
                state = 0 + node.lm_state
                following, logp, known = score_word(state, 0 + node.word, settings, words, lm, progress, missing)
                node.next_lm_state = following
                word_score = weight * (logp + words[node.word].offset) * LN_10 + settings[0].word_score
                node.next_lm_score = node.lm_score + word_score
            if has_hotwords:
                state, best = 0 + node.hot_state, node.hot_best
                if node.spoken >= 0:
                    place = find_place(hot_steps, state * settings[0].tokens + node.spoken)
                    if hot_steps[place].key == -1:
                        note_missing(progress, missing, 1, state, node.spoken)
                        known = 0
                    state, best = hot_steps[place].next, best + hot_steps[place].value
                node.next_hot_state, node.next_hot_best = state, best
                node.next_hot_score = best + bonuses[state].unfinished
            node.done = known
        if is_end and node.done == 1:
            node.end_score = 0.0
            if has_lm:
                state = 0 + node.next_lm_state
                _, logp, _ = score_word(state, settings[0].end_word, settings, words, lm, progress, missing)
                node.end_score = weight * logp * LN_10


@compiled_part
def note_missing(progress: Records, missing: np.ndarray, table: int, state: int, symbol: int) -> None:
    """Adds a transition to ``missing``, int64 ``(most, 3)``."""
    count = progress[0].missing
    progress[0].missing = count + 1
    missing[count, 0], missing[count, 1], missing[count, 2] = table, state, symbol
