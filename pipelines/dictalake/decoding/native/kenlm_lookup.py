"""Looks up n-grams in a mapped KenLM file, as KenLM does: to the last bit the same scores and states. Compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from dictalake.decoding.native.compiled import compiled, compiled_part
from dictalake.decoding.native.hash_table import find_place
from dictalake.decoding.native.tables import HASHED, Records

_SIGN = 0x80000000
_WORD_BITS = 12
_HASH_CONTEXT, _HASH_WORD = 8978948897894561157, 17894857484156487943


@compiled_part
def _read_bits(data: np.ndarray, at: int, length: int) -> int:
    """``length`` bits, 32 at most, from bit ``at`` of the file."""
    place = at >> 5
    return ((data[place] | data[place + 1] << 32) >> (at & 31)) & ((1 << length) - 1)


@compiled_part
def _read_float(data: np.ndarray, at: int) -> np.float32:
    """The float32 at byte ``at``, a multiple of 4."""
    return np.uint32(data[at >> 2]).view(np.float32)


@compiled_part
def _may_go_on(backoff: np.float32) -> bool:
    """KenLM marks an n-gram that no longer one begins with by a back-off of -0.0."""
    return np.float32(backoff).view(np.uint32) != np.uint32(_SIGN)


@compiled_part
def _find_packed(data: np.ndarray, level: Records, first: int, end: int, word: int) -> int:
    """The entry of ``word`` among the entries [first, end); -1 where there is none."""
    start, bits, word_bits = level.start * 8, level.bits, level.word_bits
    # A damaged file leads nowhere outside it.
    low, high = max(first, 0), min(end, level.count)
    end = high
    while low < high:
        middle = (low + high) // 2
        if _read_bits(data, start + middle * bits, word_bits) < word:
            low = middle + 1
        else:
            high = middle
    return low if low < end and _read_bits(data, start + low * bits, word_bits) == word else -1


@compiled_part
def _read_packed(data: np.ndarray, level: Records, entry: int) -> tuple[np.float32, np.float32]:
    """Log10 P and back-off of an entry; 0 for the back-off of the highest order."""
    at = level.start * 8 + entry * level.bits + level.word_bits
    if level.prob_table > 0:  # quantised: the back-off comes first
        backoff = np.float32(0.0)
        if level.backoff_bits > 0:
            backoff = _read_float(data, level.backoff_table + 4 * _read_bits(data, at, level.backoff_bits))
        prob = level.prob_table + 4 * _read_bits(data, at + level.backoff_bits, level.prob_bits)
        return _read_float(data, prob), backoff
    logp = np.uint32(_read_bits(data, at, 31) | _SIGN).view(np.float32)
    backoff = np.float32(0.0)
    if level.backoff_bits > 0:
        backoff = np.uint32(_read_bits(data, at + 31, 32)).view(np.float32)
    return logp, backoff


@compiled_part
def _read_next(data: np.ndarray, level: Records, entry: int) -> tuple[int, int]:
    """The entries [first, end) of the next level that belong to an entry."""
    at = level.start * 8 + (entry + 1) * level.bits - level.next_bits
    first, end = _read_bits(data, at, level.next_bits), _read_bits(data, at + level.bits, level.next_bits)
    if level.next_count > 0:  # the upper bits are the place in an array, which says from which entry on they hold
        low, high = 0, level.next_count
        while high - low > 1:
            middle = (low + high) // 2
            if _read_bits(data, (level.next_table + 8 * middle) * 8, 32) <= entry:
                low = middle
            else:
                high = middle
        first |= low << level.next_bits
        while low + 1 < level.next_count and _read_bits(data, (level.next_table + 8 * (low + 1)) * 8, 32) <= entry + 1:
            low += 1
        end |= low << level.next_bits
    return first, end


@compiled_part
def _find_hashed(data: np.ndarray, level: Records, key: Any, size: int) -> int:
    """The byte of the entry of ``key``, in a table of entries of ``size`` bytes; -1 where there is none."""
    place: Any = np.int64(np.uint64(key) % np.uint64(level.buckets))
    for _ in range(level.buckets):
        at = level.start + place * size
        found = np.uint64(data[at >> 2]) | np.uint64(data[(at >> 2) + 1]) << np.uint64(32)
        if found == np.uint64(key):
            return at
        if found == np.uint64(0):
            return -1
        place = place + 1 if place + 1 < level.buckets else 0
    return -1


@compiled
def look_up(
    data: np.ndarray, levels: Records, states: Records, filled: Records, table: Records, state: int, word: int, key: int
) -> int:
    """Adds log10 P(``word`` | ``state``) and the next state to ``table``, under ``key``; returns the place there.

    A state is the longest context that the model tells apart, the latest word first; its key is the number of words and
    then twelve bits for each word. Its number is in the same table, under a key below -1.
    """
    order, is_hashed = len(levels), levels[0].kind == HASHED
    context = states[state].key
    known, following = context & 7, states[filled[0].states]
    unigram = levels[0].start + word * (8 if is_hashed else 16)
    logp, backoff = _read_float(data, unigram), _read_float(data, unigram + 4)
    node: Any = word
    end = 0
    if is_hashed:
        logp = -abs(logp)
    else:
        node = _read_bits(data, (unigram + 8) * 8, 32)
        end = _read_bits(data, (unigram + 24) * 8, 32)
    following.backoff[0] = backoff
    matched, kept = 1, 1 if _may_go_on(backoff) else 0
    for place in range(known):
        level, is_last = levels[place + 1], place + 2 == order
        before = context >> (3 + _WORD_BITS * place) & ((1 << _WORD_BITS) - 1)
        if is_hashed:
            node = np.int64(np.uint64(node) * np.uint64(_HASH_CONTEXT) ^ np.uint64(1 + before) * np.uint64(_HASH_WORD))
            at = _find_hashed(data, level, node, 12 if is_last else 16)
            if at < 0:
                break
            logp = _read_float(data, at + 8)
            if not is_last:
                logp, backoff = -abs(logp), _read_float(data, at + 12)
        else:
            entry = _find_packed(data, level, node, end, before)
            if entry < 0:
                break
            logp, backoff = _read_packed(data, level, entry)
            if not is_last:
                node, end = _read_next(data, level, entry)
        matched = place + 2
        if not is_last:
            following.backoff[place + 1] = backoff
            if _may_go_on(backoff):
                kept = matched
    for place in range(matched - 1, known):
        logp += states[state].backoff[place]
    following.key = ((context >> 3 << _WORD_BITS | word) & ((1 << _WORD_BITS * kept) - 1)) << 3 | kept
    number = find_place(table, -2 - following.key)
    if table[number].key == -1:
        table[number].key, table[number].next = -2 - following.key, filled[0].states
        filled[0].states += 1
        filled[0].places += 1
    added = find_place(table, key)
    table[added].key, table[added].next, table[added].value = key, table[number].next, logp
    filled[0].places += 1
    return added
