"""The search by pyctcdecode: pure Python, slow, and what the native search is checked against.

Every piece of the vocabulary becomes a "word" of pyctcdecode. It keeps the whole text of every beam at every frame, so time
and memory grow with the square of a recording's length. With hotwords a recording is searched a second time, with our scorer
inside pyctcdecode's search.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.metadata
import logging
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dictalake.config.sections import Decoding
from dictalake.decoding.hotwords import HotwordScorer
from dictalake.decoding.kenlm_file import find_lm, load_kenlm, require_known
from dictalake.decoding.nbest import NBest, measure_posterior
from dictalake.decoding.segments import skip_repeated_blanks
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.records import Emissions, Hypothesis, Piece

_UNKNOWN_WORD = "⁇"  # what pyctcdecode calls <unk>

_Spoken = tuple[str, tuple[int, int]]  # a word of the search, and its first and last frame, exclusive
_EngineBeam = tuple[str, object, list[_Spoken], float, float]


class PyctcdecodeSearch:
    """Holds the decoder of pyctcdecode with the language model."""

    def __init__(self, config: Decoding, vocabulary: Vocabulary, scorer: HotwordScorer | None = None) -> None:
        """Raises ConfigError where pyctcdecode is not installed, and for a language model that it cannot use."""
        self._config, self._vocabulary, self._scorer = config, vocabulary, scorer
        name_pyctcdecode()
        self._engine = _build(_import_pyctcdecode(), config, vocabulary)
        self._words = vocabulary.lm_words()
        self._ids = {word: i for i, word in self._words.items()}
        self._specials = sorted((vocabulary.pieces[i] for i in vocabulary.special_ids), key=len, reverse=True)
        self._special_ids = sorted(vocabulary.special_ids)

    def search(self, emissions: Emissions, most: int | None = None) -> NBest:
        """The n-best list, or its first ``most``."""
        kept, skipped_logp = skip_repeated_blanks(emissions, self._vocabulary.blank_id, self._config.token_min_logp)
        log_probs = kept.dense()
        beams: list[_EngineBeam] = self._engine.decode_beams(log_probs, **self._limits())
        frame_index = kept.frame_index.tolist()
        known = _Known(lambda spoken: self._piece(spoken, log_probs, frame_index))
        plain = [_hypothesis((*beam[:3], beam[3] + skipped_logp, beam[4] + skipped_logp), known) for beam in beams]
        plain = [measure_posterior(plain), *plain[1:]]
        if self._scorer is None:
            return NBest(plain)
        biased = self._search_for_hotwords(self._scorer, emissions)
        biased = [measure_posterior(biased), *biased[1:]]
        is_same = [p.token_id for p in biased[0].pieces] == [p.token_id for p in plain[0].pieces]
        return NBest(biased) if is_same else NBest(biased, plain[0], lambda: plain)

    def count_bonus(self, pieces: Sequence[Piece]) -> float:
        """The bonus of the hotwords in ``pieces``."""
        if self._scorer is None:
            return 0.0
        return self._scorer.final_score(" ".join(self._words[piece.token_id] for piece in pieces))

    def _search_for_hotwords(self, scorer: HotwordScorer, emissions: Emissions) -> list[Hypothesis]:
        scorer.reset()
        log_probs = emissions.dense()
        beams: list[_EngineBeam] = self._engine._decode_logits(
            log_probs, prune_history=False, hotword_scorer=scorer, **self._limits()
        )
        hypotheses = []
        frame_index = emissions.frame_index.tolist()
        known = _Known(lambda spoken: self._piece(spoken, log_probs, frame_index))
        for beam in beams:
            begun = scorer.score(" ".join(word for word, _ in beam[2]))
            hypothesis = _hypothesis((*beam[:4], beam[4] - begun), known)
            hypotheses.append(replace(hypothesis, hotword_score=self.count_bonus(hypothesis.pieces)))
        hypotheses.sort(key=lambda hypothesis: -hypothesis.total_score)
        return hypotheses

    def _limits(self) -> dict[str, Any]:
        names = ("beam_prune_logp", "token_min_logp")
        return {"beam_width": self._config.beam_width} | {name: float(getattr(self._config, name)) for name in names}

    def _piece(self, spoken: _Spoken, log_probs: np.ndarray, frame_index: Sequence[int]) -> Piece | None:
        """The piece, or None for a special token and for a word that the vocabulary does not know."""
        word, (start, end) = spoken
        plain = self._without_specials(word)
        if plain in ("", _UNKNOWN_WORD):
            return None
        token_id = self._ids[plain]
        start = min(max(start, 0), len(frame_index) - 1)
        end = min(max(end, start + 1), len(frame_index))
        if plain != word:
            end = self._end_before_special(log_probs, token_id, start, end)
        peak = log_probs[start, token_id] if end == start + 1 else log_probs[start:end, token_id].max()
        return Piece(
            token_id=token_id,
            text=self._vocabulary.pieces[token_id],
            start_frame=frame_index[start],
            end_frame=frame_index[end - 1] + 1,
            logp=min(0.0, float(peak)),
        )

    def _without_specials(self, word: str) -> str:
        """``word`` without special tokens: one such as ``</s>``, which starts no word, is glued to the word before."""
        stripped = True
        while stripped and word not in self._ids:
            suffix = next((special for special in self._specials if word.endswith(special)), "")
            word, stripped = word.removesuffix(suffix), bool(suffix)
        return word

    def _end_before_special(self, log_probs: np.ndarray, token_id: int, start: int, end: int) -> int:
        """Where the piece really ends in a span that a special token at its end has stretched: after its last frame."""
        rivals = log_probs[start:end, self._special_ids].max(axis=1)
        heard = np.flatnonzero(log_probs[start:end, token_id] > rivals)
        return start + (int(heard[-1]) + 1 if len(heard) else 1)


class _Known(dict[_Spoken, Piece | None]):
    """Pieces of the beams of one search, each made on first use: most beams differ in few pieces."""

    def __init__(self, make: Callable[[_Spoken], Piece | None]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, spoken: _Spoken) -> Piece | None:
        piece = self[spoken] = self._make(spoken)
        return piece


def name_pyctcdecode() -> str:
    """The package and its version. Raises ConfigError where it is not installed."""
    try:
        return f"pyctcdecode {importlib.metadata.version('pyctcdecode')}"
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            "decoding.engine = pyctcdecode: it is not installed; it needs Python below 3.13 (pip install pyctcdecode), "
            "or set decoding.engine: native"
        ) from None


def _hypothesis(beam: _EngineBeam, known: _Known) -> Hypothesis:
    _, _, words, acoustic_score, total_score = beam
    pieces = tuple(piece for piece in map(known.__getitem__, words) if piece is not None)
    return Hypothesis(pieces, float(acoustic_score), float(total_score - acoustic_score))


def _build(module: Any, config: Decoding, vocabulary: Vocabulary) -> Any:
    found = find_lm(config)
    lm = None if found is None else str(found)
    with _quiet_loggers(), _unpacked(lm) as path:
        if lm is not None:
            require_known(lm, load_kenlm(lm, path).__contains__, vocabulary)
        known = list(vocabulary.lm_words().values()) if lm is not None and config.known_pieces else None
        return module.build_ctcdecoder(
            vocabulary.pyctcdecode_labels(),
            kenlm_model_path=path,
            unigrams=known,
            alpha=float(config.lm_weight),
            beta=float(config.word_score),
        )


@contextmanager
def _unpacked(lm: str | None) -> Iterator[str | None]:
    """``lm`` under a name that does not end in .arpa.

    From an ARPA pyctcdecode also reads a word list and scores by it, so one model would give different texts as ARPA and as
    binary. A packed file is unpacked, as KenLM may lack the libraries.
    """
    if lm is None or not lm.endswith((".arpa", ".gz", ".xz")):
        yield lm
        return
    with tempfile.TemporaryDirectory(prefix="dictalake-lm-") as folder:
        path = Path(folder) / "lm"
        if lm.endswith(".arpa"):
            path.symlink_to(Path(lm).resolve())
        else:
            with (gzip if lm.endswith(".gz") else lzma).open(lm) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        yield str(path)


def _import_pyctcdecode() -> Any:
    with _quiet_loggers():
        return importlib.import_module("pyctcdecode")


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Silences pyctcdecode's warning that a binary model has no unigram list: the recipe has none either."""
    logger = logging.getLogger("pyctcdecode")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
