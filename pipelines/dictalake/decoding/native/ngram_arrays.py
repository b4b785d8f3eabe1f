"""Builds the arrays of an n-gram model from an ARPA file, order by order."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dictalake.decoding.native.arpa import (
    ENDED,
    UNUSUAL,
    ArpaReader,
    UnusualArpaError,
    find_child,
    hash_words,
    open_text,
    parse_lines,
)
from dictalake.decoding.native.compiled import compiled
from dictalake.decoding.native.tables import CONTEXT, NGRAM, Records, make_records

_MOST_WORDS = 1 << 16
_MOST_NGRAMS = (1 << 31) - 2
_UNKNOWN_LOGP = -100.0  # KenLM's, for a model that does not know <unk>


class NgramModel(NamedTuple):
    """``ngrams`` and ``contexts`` (one more, which only ends the children of the last), and the words by their ids."""

    ngrams: Records
    contexts: Records
    words: list[str]


def build_ngrams(path: Path) -> NgramModel:
    """Reads an ARPA file, packed or not. Raises UnusualArpaError for what KenLM has to judge, OSError, EOFError, LZMAError."""
    with open_text(path) as stream:
        reader = ArpaReader(stream)
        if not reader.counts or sum(reader.counts) > _MOST_NGRAMS or reader.counts[0] >= _MOST_WORDS:
            raise UnusualArpaError("too many n-grams or words, or none")
        words, logp, backoff = reader.read_unigrams()
        if "<unk>" not in words:
            words, logp, backoff = [*words, "<unk>"], [*logp, _UNKNOWN_LOGP], [*backoff, 0.0]
        if not {"<s>", "</s>"} <= set(words) or max(logp) > 0:
            raise UnusualArpaError("no <s>, no </s>, or a positive score")
        model = _make_unigrams(words, logp, backoff, len(reader.counts))
        table = hash_words(words)
        for order, count in enumerate(reader.counts[1:], start=2):
            model = _add_order(reader, model, order, count, table, is_last=order == len(reader.counts))
    return model


def _make_unigrams(words: list[str], logp: list[float], backoff: list[float], orders: int) -> NgramModel:
    ngrams = make_records(NGRAM, 1 + len(words))
    ngrams["word"][1:], ngrams["logp"][1:] = range(len(words)), logp
    contexts = make_records(CONTEXT, 2 if orders == 1 else 2 + len(words))
    contexts["first"], contexts["first"][0] = len(ngrams), 1
    if orders > 1:
        contexts["backoff"][1:-1] = backoff
    return NgramModel(ngrams, contexts, words)


def _add_order(
    reader: ArpaReader, model: NgramModel, order: int, count: int, table: tuple[np.ndarray, np.ndarray], is_last: bool
) -> NgramModel:
    """The model with the n-grams of one more order."""
    keys, logp, backoff = np.empty(count, np.int64), np.empty(count, np.float32), np.empty(count, np.float32)
    read, begun = 0, False
    for text in reader.chunks():
        if not begun:
            # The title of the section stands before it, with blank lines
            title = rf"\{order}-grams:".encode()
            found = bytes(text[: len(title) + 64]).find(title)
            if found < 0:
                raise UnusualArpaError("a section is missing")
            reader.leave(found + len(title))
            text, begun = text[found + len(title) :], True
        how, used, read = parse_lines(text, order, *table, model.ngrams, model.contexts, read, keys, logp, backoff)
        if how == UNUSUAL:
            raise UnusualArpaError("a line is not as it should be")
        reader.leave(used)
        if how == ENDED:
            break
    if read != count:
        raise UnusualArpaError("the counts in the header are not those of the sections")
    by_key = np.argsort(keys, kind="stable")
    keys, logp, backoff = keys[by_key], logp[by_key], backoff[by_key]
    if count and (keys[1:] == keys[:-1]).any():
        raise UnusualArpaError("an n-gram stands there twice")
    return _join(model, keys, logp, backoff, is_last)


def _join(model: NgramModel, keys: np.ndarray, logp: np.ndarray, backoff: np.ndarray, is_last: bool) -> NgramModel:
    size, parents = len(model.ngrams), keys >> 16
    added = make_records(NGRAM, len(keys))
    added["word"], added["logp"] = keys & (_MOST_WORDS - 1), logp
    # The contexts of this order are the nodes of the order before; their children stand behind all that is there.
    contexts = model.contexts.copy()
    without_children = np.flatnonzero(contexts["first"][1:] >= size)
    contexts["first"][1 + without_children] = size + np.searchsorted(parents, without_children, side="right")
    find_links(model.ngrams, contexts, parents, added)
    if len(keys) and not is_last:
        more = make_records(CONTEXT, len(keys))
        contexts["backoff"][-1:], more["backoff"][:-1] = backoff[:1], backoff[1:]
        more["first"] = size + len(keys)
        contexts = np.concatenate([contexts, more])
    return NgramModel(np.concatenate([model.ngrams, added]), contexts, model.words)


@compiled
def find_links(ngrams: Records, contexts: Records, parents: np.ndarray, added: Records) -> None:
    """For each n-gram the longest known context without its first word."""
    for index in range(len(parents)):
        node, word, found = int(ngrams[parents[index]].link), 0 + added[index].word, -1
        while found < 0:
            found = find_child(ngrams, contexts, node, word)
            node = int(ngrams[node].link)
        added[index].link = found
