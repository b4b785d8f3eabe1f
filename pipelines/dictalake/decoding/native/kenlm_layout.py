"""Where a KenLM binary file has its tables: lm/binary_format.cc, lm/trie.cc and lm/search_hashed.cc of KenLM, format 5.

KenLM maps the file and looks n-grams up where they lie, by the last word first. So does the native search, which needs
nothing but the places. They are computed from the header. The list of words stands behind all tables, so one mistake in any
size would be seen.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dictalake.decoding.native.tables import HASHED, LEVEL, PACKED, Records, make_records

MOST_ORDER = 6
_WORD_BITS = 12  # of a word in the key of a state, five of which are one number
_MOST_NGRAMS = (1 << 31) - 1
_MAGIC = b"mmap lm http://kheafield.com/code format version 5\n\0"
_FIXED = struct.Struct("<BxxxfIBxxxI")  # order, multiplier of the hash tables, kind of model, has words, version of the search
_FIXED_AT, _COUNTS_AT = 0x58, 0x6C
_PROBING, _TRIES, _QUANTISED, _ARRAYS = 0, range(2, 6), (3, 5), (4, 5)
_PROB_BITS, _BACKOFF_BITS = 31, 32  # without quantisation; the sign of a probability is not stored


class KenlmFile(NamedTuple):
    """``data`` is the mapped file as uint32, ``levels`` say where the n-grams of each order lie; words by their ids."""

    data: np.ndarray
    levels: Records
    words: list[str]


class _Unreadable(Exception):
    pass


def map_kenlm_file(path: Path) -> KenlmFile | None:
    """None for a file of another kind, without its words, or with so many words that a state would not fit in a number."""
    with path.open("rb") as stream:
        try:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # it is empty
            return None
    try:
        levels, end = _find_levels(mapped)
        words = mapped[end:].split(b"\0")[:-1]
        # Of hash tables the count is that of the ARPA file, which may have been without <unk>.
        more = len(words) - int(levels[0]["count"])
        if words[:1] != [b"<unk>"] or not 0 <= more <= (levels[0]["kind"] == HASHED):
            return None
        return KenlmFile(np.frombuffer(mapped, np.uint32, len(mapped) // 4), levels, [word.decode() for word in words])
    except (_Unreadable, struct.error, IndexError, OverflowError, ValueError):  # the header leads outside the file
        return None


def _find_levels(mapped: mmap.mmap) -> tuple[Records, int]:
    order, multiplier, kind, has_words, version = _FIXED.unpack_from(mapped, _FIXED_AT)
    if not mapped[:64].startswith(_MAGIC) or not has_words or not 2 <= order <= MOST_ORDER:
        raise _Unreadable
    counts = struct.unpack_from(f"<{order}Q", mapped, _COUNTS_AT)
    if counts[0] >= 1 << _WORD_BITS or sum(counts) > min(len(mapped), _MOST_NGRAMS):
        raise _Unreadable
    levels = make_records(LEVEL, order)
    levels["count"] = counts
    start = _align(_COUNTS_AT + 8 * order)
    if (kind, version) == (_PROBING, 0):
        return levels, _place_hashed(levels, start, counts, np.float32(multiplier))
    if kind in _TRIES and version == 1:
        return levels, _place_packed(mapped, levels, start, counts, kind)
    raise _Unreadable


def _place_hashed(levels: Records, start: int, counts: tuple[int, ...], multiplier: np.float32) -> int:
    """Tables of 64-bit hashes, with linear probing. Returns where they end."""
    levels["kind"] = HASHED
    buckets = [max(count + 1, int(multiplier * np.float32(count))) for count in counts]
    start += 8 + 12 * buckets[0]  # the hashes of the words
    levels["start"][0] = start
    start += 8 * (counts[0] + 1)
    for number in range(1, len(counts)):
        levels["start"][number], levels["buckets"][number] = start, buckets[number]
        start += (12 if number == len(counts) - 1 else 16) * buckets[number]
    return start


def _place_packed(mapped: mmap.mmap, levels: Records, start: int, counts: tuple[int, ...], kind: int) -> int:
    """A trie of arrays that are packed to the bit. Returns where they end."""
    levels["kind"] = PACKED
    start += 8 + 8 * counts[0]  # the sorted hashes of the words
    prob_bits, backoff_bits = _PROB_BITS, _BACKOFF_BITS
    if kind in _QUANTISED:
        quantiser, prob_bits, backoff_bits = mapped[start : start + 3]
        if quantiser != 2 or not 0 < prob_bits <= 25 or not 0 < backoff_bits <= 25:
            raise _Unreadable
        start += 8
        for number in range(1, len(counts)):
            levels["prob_table"][number] = start
            start += 4 << prob_bits
            if number < len(counts) - 1:
                levels["backoff_table"][number] = start
                start += 4 << backoff_bits
    levels["start"][0] = start
    start += 16 * (counts[0] + 2)
    levels["word_bits"], levels["prob_bits"] = counts[0].bit_length(), prob_bits
    chopped = mapped[start + 1] if kind in _ARRAYS and len(counts) > 2 else 0
    for number in range(1, len(counts)):
        if number < len(counts) - 1:
            start = _place_next(levels[number : number + 1], start, counts[number + 1], chopped, kind in _ARRAYS)
            levels["backoff_bits"][number] = backoff_bits
        one = levels[number]
        levels["bits"][number] = bits = int(one["word_bits"] + one["prob_bits"] + one["backoff_bits"] + one["next_bits"])
        levels["start"][number] = start
        start += ((1 + counts[number]) * bits + 7) // 8 + 8
    return start


def _place_next(level: Records, start: int, longer: int, most: int, has_array: bool) -> int:
    """How a level points to the next one, of ``longer`` entries: the upper bits may lie in an array. Returns where it ends."""
    required = longer.bit_length()
    level["next_bits"] = required
    if not has_array:
        return start
    offsets = int(level["count"][0]) + 1
    chop = min(range(min(required, most) + 1), key=lambda chop: (longer >> (required - chop)) * 64 - offsets * chop)
    level["next_bits"] = required - chop
    level["next_table"], level["next_count"] = _align(start) + 8, (longer >> (required - chop)) + 1
    return start + 8 * (1 + int(level["next_count"][0])) + 7


def _align(offset: int) -> int:
    return (offset + 7) // 8 * 8
