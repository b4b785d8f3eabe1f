"""What the tokens of a vocabulary mean and cost in the search: pyctcdecode's rules, in tables."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from dictalake.decoding.native.tables import BLANK, CONTINUES_WORD, STARTS_WORD, TOKEN, UNKNOWN, Records, make_records
from dictalake.decoding.vocabulary import Vocabulary

UNKNOWN_PRICE = -10.0  # pyctcdecode's price of an unknown word, log10 in the model and nats while it is being spelt
UNKNOWN_WORD = "⁇"
_USUAL_LETTERS = 6


def list_words(vocabulary: Vocabulary) -> list[str]:
    """The word of each word id: of the tokens, then a word that no model knows, and the end of a text."""
    words = vocabulary.lm_words()
    special = {i: vocabulary.pieces[i] for i in vocabulary.special_ids}
    special |= {i: UNKNOWN_WORD for i, piece in special.items() if piece.lower() == "<unk>"}
    return [*(words.get(i, special.get(i, "")) for i in range(len(vocabulary.pieces))), "<unk>", "</s>"]


def price_tokens(
    vocabulary: Vocabulary, is_known: Callable[[str], bool] | None, known_pieces: bool
) -> tuple[Records, np.ndarray]:
    """The records of the tokens, and the offset of each word id, for a language model that says which words it knows.

    ``is_known`` is None for a search without a model. ``known_pieces``: every piece that the model knows is listed as a word,
    else there is no such list.
    """
    words, size = list_words(vocabulary), len(vocabulary.pieces)
    tokens, offsets = make_records(TOKEN, size), np.zeros(size + 2)
    tokens["kind"], tokens["length"] = STARTS_WORD, [len(word) for word in words[:size]]
    for index in vocabulary.special_ids:
        tokens["kind"][index] = UNKNOWN if words[index] == UNKNOWN_WORD else CONTINUES_WORD
    tokens["kind"][vocabulary.blank_id] = BLANK
    if is_known is not None:
        listed: list[str] = []
        if known_pieces:
            listed = sorted({word for word in vocabulary.lm_words().values() if is_known(word)})
        for index, word in enumerate(words[:size]):
            if not is_known(word) or (listed and word not in listed):
                offsets[index] = UNKNOWN_PRICE
            if not (known_pieces and _begins_one(word, listed)):
                tokens["partial"][index] = UNKNOWN_PRICE * max(len(word), _USUAL_LETTERS) / _USUAL_LETTERS
        offsets[size] = UNKNOWN_PRICE
    return tokens, offsets


def _begins_one(start: str, listed: list[str]) -> bool:
    """Whether a word of the sorted list begins so: while a beam spells it, it may yet become one."""
    place = bisect_left(listed, start)
    return place < len(listed) and listed[place].startswith(start)
