"""Opens the language model of the native search: an ARPA file as mapped arrays, a KenLM binary by asking KenLM."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.kenlm_file import find_lm, load_kenlm, require_known
from dictalake.decoding.native.arpa import UnusualArpaError
from dictalake.decoding.native.compiled import compiled
from dictalake.decoding.native.kenlm_states import KenlmStates
from dictalake.decoding.native.ngram_arrays import NgramModel
from dictalake.decoding.native.ngram_cache import open_ngrams
from dictalake.decoding.native.steps import advance_ngram
from dictalake.decoding.native.tables import ARRAYS, ASKED, CONTEXT, NGRAM, NO_LM, Records, make_records, read_only
from dictalake.decoding.native.token_prices import list_words
from dictalake.decoding.vocabulary import Vocabulary

_BINARY = b"mmap lm http://kheafield.com/code"


@dataclass(frozen=True)
class OpenModel:
    """``kind`` and ``start`` state for the search; for arrays ``ngrams``, ``contexts`` and their ``ids`` of our words; for
    KenLM ``states``. ``nothing`` is log10 P of a recording without words; ``knows`` is None without a model.
    """

    kind: int
    ids: np.ndarray
    knows: Callable[[str], bool] | None = None
    start: int = 0
    nothing: float = 0.0
    ngrams: Records = field(default_factory=lambda: read_only(make_records(NGRAM, 1)))
    contexts: Records = field(default_factory=lambda: read_only(make_records(CONTEXT, 2)))
    states: KenlmStates | None = None


def open_language_model(config: Decoding, vocabulary: Vocabulary) -> OpenModel:
    """Raises ConfigError for a model that is missing, damaged, or made for other pieces."""
    words = list_words(vocabulary)
    ids = np.zeros(len(words), np.int64)
    path = find_lm(config)
    if path is None:
        return OpenModel(NO_LM, ids)
    if (model := _open_arrays(path)) is not None:
        return _use_arrays(model, words, str(path), vocabulary)
    states = KenlmStates(load_kenlm(str(path)), words)
    require_known(str(path), states.knows, vocabulary)
    return OpenModel(ASKED, ids, states.knows, nothing=states.score_nothing(), states=states)


def _open_arrays(path: Path) -> NgramModel | None:
    """None for a KenLM binary, and for what is no usual ARPA file: KenLM reads it, or says what is wrong with it."""
    with path.open("rb") as stream:
        if stream.read(len(_BINARY)) == _BINARY:
            return None
    try:
        return open_ngrams(path)
    except (UnusualArpaError, ValueError, EOFError, OSError, lzma.LZMAError):
        return None


def _use_arrays(model: NgramModel, words: list[str], path: str, vocabulary: Vocabulary) -> OpenModel:
    ids = {word: index for index, word in enumerate(model.words) if word != "<unk>"}
    unknown = model.words.index("<unk>")
    require_known(path, ids.__contains__, vocabulary)
    start = 1 + ids["<s>"]
    nothing = score_words(model.ngrams, model.contexts, start, np.array([unknown, ids["</s>"]]))
    ours = np.array([ids.get(word, unknown) for word in words], np.int64)
    return OpenModel(ARRAYS, ours, ids.__contains__, start, nothing, model.ngrams, model.contexts)


@compiled
def score_words(ngrams: Records, contexts: Records, state: int, words: np.ndarray) -> float:
    """log10 P of ``words`` behind ``state``."""
    total = 0.0
    for word in words:
        state, logp = advance_ngram(ngrams, contexts, state, word)
        total += logp
    return total
