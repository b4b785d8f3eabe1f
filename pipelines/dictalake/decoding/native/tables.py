"""The arrays that the compiled search works on. Python allocates them and makes them larger; a frame allocates nothing.

They are arrays of records, since numba compiles a function with few arguments several times faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BLANK, STARTS_WORD, CONTINUES_WORD, UNKNOWN = range(4)  # what a token does to a text
# The language model: none, n-gram arrays, a mapped KenLM file, or a table that is filled by asking KenLM
NO_LM, ARRAYS, MAPPED, ASKED = range(4)
HASHED, PACKED = range(2)  # the kinds of KenLM files: hash tables, and tries that are packed to the bit
PLAIN_WIDTH = 8  # with hotwords: at most so many beams stay since they are the best without any bonus

# What holds for a whole search. Scores and prices are in nats unless they say otherwise.
SETTINGS = np.dtype(
    [
        ("width", "i8"),
        ("has_hotwords", "i8"),
        ("plain_width", "i8"),
        ("prune_logp", "f8"),
        ("blank_id", "i8"),
        ("tokens", "i8"),
        ("glued_word", "i8"),  # the word of any piece with a special token behind it
        ("end_word", "i8"),
        ("glued_partial", "f8"),  # what a beam pays while such a word is its last
        ("lm_kind", "i8"),
        ("lm_weight", "f8"),
        ("word_score", "f8"),
        ("lm_start", "i8"),
        ("nothing", "f8"),  # the language model's score of a recording without words
    ],
    align=True,
)
# How far a search is: frame, beams, texts and spans so far, whether all beams end in a blank, a counter for stamps,
# and how many transitions it misses.
PROGRESS = np.dtype([(name, "i8") for name in ("frame", "beams", "nodes", "spans", "quiet", "stamp", "missing")], align=True)
# By token id. ``partial`` is what a beam pays while the token is its last piece.
TOKEN = np.dtype([("kind", "i4"), ("length", "i4"), ("partial", "f8")], align=True)
# By word id: token ids, then ``glued_word`` and ``end_word``. ``lm_id`` is the model's own number; ``offset``, log10, is the
# price of a word that the list of words or the model does not know.
WORD = np.dtype([("lm_id", "i8"), ("offset", "f8")], align=True)
# A hash table of pairs → a number and a value; ``key`` is -1 where a place is free.
TRANSITION = np.dtype([("key", "i8"), ("value", "f8"), ("next", "i8")], align=True)
# An n-gram model as a trie of contexts. Node 0 is the empty context, and node 1 + w the word w. Each n-gram has an entry; those
# below the highest order come first, and are contexts too. The children of context s are the entries from its ``first`` up to
# that of s + 1, by rising word. ``link`` is the longest context that is known without the first word. Log10. Packed, as the
# models are large.
NGRAM = np.dtype([("word", "u2"), ("logp", "f4"), ("link", "i4")])
CONTEXT = np.dtype([("backoff", "f4"), ("first", "i4")])
# Where a KenLM file has the n-grams of one order: see ``kenlm_layout.py``. Bytes from its beginning, and numbers of bits. Of a
# trie ``bits`` is the size of an entry: word, probability, back-off, next level.
LEVEL = np.dtype(
    [
        *((name, "i8") for name in ("kind", "start", "count", "buckets", "bits", "word_bits", "prob_bits", "backoff_bits")),
        *((name, "i8") for name in ("next_bits", "next_table", "next_count", "prob_table", "backoff_table")),
    ],
    align=True,
)
# A state of a KenLM file: its words in one number, and the back-off of its first word, its first two words, and so on.
STATE = np.dtype([("key", "i8"), ("backoff", "f4", (5,))], align=True)
# How many states there are, and how many places of the table are taken.
FILLED = np.dtype([("states", "i8"), ("places", "i8")], align=True)
# What a state of the hotwords is worth: with its unfinished terms, and at the end of a recording.
BONUS = np.dtype([("unfinished", "f8"), ("finished", "f8")], align=True)
# A text: the parent's with one token more. ``lm_*`` and ``hot_*`` count the words before the last one, as in pyctcdecode, which
# scores a word when the next one begins; ``next_*`` count the last one too, and hold where ``done`` is 1. ``end_score`` is that
# of the end of a recording behind it. ``spoken`` is the last piece, or -1. The stamps find the candidate of a text within the
# loop over one token.
NODE = np.dtype(
    [
        *((name, "f8") for name in ("partial", "lm_score", "next_lm_score", "hot_best", "next_hot_best")),
        *((name, "f8") for name in ("hot_score", "next_hot_score", "end_score")),
        *((name, "i8") for name in ("stamp", "new_stamp")),
        *((name, "i4") for name in ("slot", "new_slot", "token", "parent", "word")),
        *((name, "i4") for name in ("length", "spoken", "done", "has_child")),
        *((name, "i4") for name in ("lm_state", "next_lm_state", "hot_state", "next_hot_state")),
    ],
    align=True,
)
# Where the last token of a text lies in time, frames [start, end), and the span of the token before.
SPAN = np.dtype([(name, "i4") for name in ("start", "end", "before", "node")], align=True)
# A beam of one frame: a text and its last token, which sounds still or is the blank; its score by the sound; where its last
# piece lies, and the span before that. The best come first.
BEAM = np.dtype([("score", "f8"), *((name, "i4") for name in ("node", "last", "span", "start", "end"))], align=True)
# What may become a beam: ``node`` -1 is a new child of ``parent``. ``source`` is the best beam that leads there.
CANDIDATE = np.dtype(
    [
        *((name, "f8") for name in ("score", "total", "plain_total")),
        *((name, "i4") for name in ("node", "parent", "token", "source", "step", "is_kept")),
    ],
    align=True,
)
# A hypothesis: a text, where its tokens lie, and its scores.
FOUND = np.dtype(
    [*((name, "i8") for name in ("node", "span", "start", "end")), *((name, "f8") for name in ("acoustic", "lm", "hot"))],
    align=True,
)

LmTables = Any  # a tuple: ngrams, contexts, asked, data, levels, states, filled
Records = Any  # of an array of records: mypy knows no fields, and numba reads them as attributes


def make_records(kind: np.dtype[Any], *shape: int) -> Records:
    return np.zeros(shape, kind)


def make_transitions(capacity: int) -> Records:
    """An empty hash table; ``capacity`` is a power of two."""
    table = np.zeros(capacity, TRANSITION)
    table["key"] = -1
    return table


def read_only(records: Records) -> Records:
    """Like arrays mapped from a file: so the search is compiled once for both."""
    records.flags.writeable = False
    return records
