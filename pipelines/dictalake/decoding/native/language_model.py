"""Opens the language model of the native search: an ARPA file as mapped arrays, a KenLM file as it is, or by asking KenLM."""

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
from dictalake.decoding.native.kenlm_tables import KenlmTables, open_tables
from dictalake.decoding.native.ngram_arrays import NgramModel
from dictalake.decoding.native.ngram_cache import open_ngrams
from dictalake.decoding.native.steps import advance_ngram
from dictalake.decoding.native.tables import (
    ARRAYS,
    ASKED,
    CONTEXT,
    FILLED,
    LEVEL,
    MAPPED,
    NGRAM,
    NO_LM,
    STATE,
    LmTables,
    Records,
    make_records,
    make_transitions,
    read_only,
)
from dictalake.decoding.native.token_prices import list_words
from dictalake.decoding.vocabulary import Vocabulary

_NO_STEPS = make_transitions(2)
_NO_FILE = (read_only(np.zeros(2, np.uint32)), make_records(LEVEL, 1), make_records(STATE, 1), make_records(FILLED, 1))
_BINARY = b"mmap lm http://kheafield.com/code"


@dataclass(frozen=True)
class OpenModel:
    """``kind``, the model's ``ids`` of our words and its ``start`` state for the search; for arrays ``ngrams`` and
    ``contexts``, for a mapped KenLM file ``file``, for KenLM ``states``. ``nothing`` is log10 P of a recording without words;
    ``knows`` is None without a model.
    """

    kind: int
    ids: np.ndarray
    knows: Callable[[str], bool] | None = None
    start: int = 0
    nothing: float = 0.0
    ngrams: Records = field(default_factory=lambda: read_only(make_records(NGRAM, 1)))
    contexts: Records = field(default_factory=lambda: read_only(make_records(CONTEXT, 2)))
    file: KenlmTables | None = None
    states: KenlmStates | None = None

    def tables(self) -> LmTables:
        """What the compiled search looks into; it changes as tables are filled."""
        asked = _NO_STEPS if self.states is None else self.states.table.records
        if self.file is None:
            return self.ngrams, self.contexts, asked, *_NO_FILE
        return self.ngrams, self.contexts, self.file.table, self.file.data, self.file.levels, self.file.states, self.file.filled

    def forget(self) -> None:
        """Call it between recordings."""
        for filled in (self.file, self.states):
            if filled is not None:
                filled.forget()


def open_language_model(config: Decoding, vocabulary: Vocabulary) -> OpenModel:
    """Raises ConfigError for a model that is missing, damaged, or made for other pieces."""
    words = list_words(vocabulary)
    ids = np.zeros(len(words), np.int64)
    path = find_lm(config)
    if path is None:
        return OpenModel(NO_LM, ids)
    if (model := _open_arrays(path)) is not None:
        return _use_arrays(model, words, str(path), vocabulary)
    kenlm = load_kenlm(str(path))
    if (file := open_tables(path, kenlm, words)) is not None:
        require_known(str(path), file.knows, vocabulary)
        return OpenModel(MAPPED, file.ids, file.knows, nothing=file.score_nothing(), file=file)
    states = KenlmStates(kenlm, words)
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
