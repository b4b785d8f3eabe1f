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
def complete_words(
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
    """Scores the last word of each beam's text; an entry in ``missing`` where a table must be filled first."""
    ngrams, contexts, asked, data, levels, states, filled = lm
    lm_kind, has_hotwords = settings[0].lm_kind, settings[0].has_hotwords == 1
    for beam in range(progress[0].beams):
        node = nodes[beams[beam].node]
        if node.done == 1:
            continue
        known = 1
        if lm_kind != NO_LM:
            if lm_kind == ARRAYS:
                following, logp = advance_ngram(ngrams, contexts, node.lm_state, words[node.word].lm_id)
            else:
                key = node.lm_state * len(words) + node.word
                place = find_place(asked, key)
                if asked[place].key == -1 and lm_kind == MAPPED:
                    place = look_up(data, levels, states, filled, asked, node.lm_state, words[node.word].lm_id, key)
                elif asked[place].key == -1:
                    note_missing(progress, missing, 0, node.lm_state, node.word)
                    known = 0
                following, logp = asked[place].next, asked[place].value
            node.next_lm_state = following
            word_score = settings[0].lm_weight * (logp + words[node.word].offset) * LN_10 + settings[0].word_score
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


@compiled_part
def score_end(
    state: int,
    settings: Records,
    words: Records,
    lm: LmTables,
    progress: Records,
    missing: np.ndarray,
) -> float:
    """The weighted score of the end of a recording; an entry in ``missing`` where the table must be filled first."""
    if settings[0].lm_kind == NO_LM:
        return 0.0
    ngrams, contexts, asked, data, levels, states, filled = lm
    word = settings[0].end_word
    if settings[0].lm_kind == ARRAYS:
        logp = advance_ngram(ngrams, contexts, state, words[word].lm_id)[1]
    else:
        key = state * len(words) + word
        place = find_place(asked, key)
        if asked[place].key == -1 and settings[0].lm_kind == MAPPED:
            place = look_up(data, levels, states, filled, asked, state, words[word].lm_id, key)
        elif asked[place].key == -1:
            note_missing(progress, missing, 0, state, word)
        logp = asked[place].value
    return settings[0].lm_weight * logp * LN_10


@compiled_part
def note_missing(progress: Records, missing: np.ndarray, table: int, state: int, symbol: int) -> None:
    """Adds a transition to ``missing``, int64 ``(most, 3)``."""
    count = progress[0].missing
    progress[0].missing = count + 1
    missing[count, 0], missing[count, 1], missing[count, 2] = table, state, symbol
