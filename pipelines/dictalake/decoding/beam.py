"""CTC beam search with a KenLM language model fused into the search (shallow fusion), as in Google's recipe for MedASR.

Every piece of the vocabulary becomes a "word" of pyctcdecode, so the n-gram model is over pieces. The search scores each
piece as pyctcdecode does: ``acoustic + lm_weight × ln P(piece | before) + word_score``.
Two engines do the same search: pyctcdecode (pure Python) and ctc-beam-decoder (C++, see ``ctc_beam_decoder.py``), which is
three times as fast where its wheel exists. They differ in one thing. pyctcdecode visits the tokens of a frame in the order of
a Python set, the C++ engine visits them by id; this order decides which of two equally good beams is dropped.

The recipe gives pyctcdecode no word list. A beam then pays 10 nats for the piece that it is spelling, and more if the piece
has over six letters. So beams are dropped because their last piece is long, and the first piece of a recording is dropped
because it is unfinished. ``decoding.known_pieces`` gives all pieces as the word list, which ends this; without it the search
is the recipe's.

Both engines keep the whole text of every beam at every frame, so time and memory grow with the square of a recording's
length (ctc-beam-decoder: 0.8 GB for ten minutes, 7 GB for half an hour). A recording of up to ``WHOLE_FRAMES`` kept frames
(two minutes of speech) is searched as a whole, exactly as in the recipe. A longer one is cut at pauses. Each part is searched
with ``CONTEXT_FRAMES`` of its neighbours on both sides, and only its own pieces are kept. This loses nothing: a search over
the whole would spend its beams on alternatives from minutes ago.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.metadata
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from heapq import nlargest
from itertools import product
from pathlib import Path
from typing import Any

import kenlm
import numpy as np

from dictalake.config.locations import resolve
from dictalake.config.sections import Decoding
from dictalake.decoding.ctc_beam_decoder import faster_decoder
from dictalake.decoding.hotword_check import drop_unsupported
from dictalake.decoding.hotwords import HotwordScorer, read_hotwords
from dictalake.decoding.lm_file import check_lm_file
from dictalake.decoding.segments import cut_at_pauses, skip_repeated_blanks, slice_frames
from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError
from dictalake.records import Emissions, Hypothesis, Piece

WHOLE_FRAMES = 3000
CONTEXT_FRAMES = 200
# Two English tokenizers share single letters and a few short pieces; a model of the same tokenizer knows nearly all pieces.
_LEAST_KNOWN_SHARE = 0.3
_SLACK = 2  # frames by which a piece may move and still be the same piece in two hypotheses
_UNKNOWN_WORD = "⁇"  # what both engines call <unk>

_Spoken = tuple[str, tuple[int, int]]  # a word of an engine, and its first and last frame, exclusive
_EngineBeam = tuple[str, object, list[_Spoken], float, float]


class BeamDecoder:
    """Searches with one of two engines; holds the language model."""

    def __init__(self, config: Decoding, vocabulary: Vocabulary) -> None:
        self._config, self._vocabulary = config, vocabulary
        lm = None if config.lm is None else _check_lm(config, resolve(config.lm), vocabulary)
        self.name = name_search(config)
        _, module = _import_engine(config.engine)
        self._engine = _build(module, lm, config, vocabulary)
        self._hotwords: HotwordScorer | None = None
        if config.hotwords is not None:
            hotwords = read_hotwords(Path(resolve(config.hotwords)), vocabulary).hotwords
            self._hotwords = HotwordScorer(hotwords, float(config.hotword_weight), vocabulary)
            # Only pyctcdecode's search accepts a scorer for terms of several pieces.
            _, module = _import_engine("pyctcdecode")
            self._biased_engine = _build(module, lm, config, vocabulary)
        self._ids = {word: i for i, word in vocabulary.lm_words().items()}
        self._specials = sorted((vocabulary.pieces[i] for i in vocabulary.special_ids), key=len, reverse=True)
        self._special_ids = sorted(vocabulary.special_ids)

    def decode(self, emissions: Emissions) -> list[Hypothesis]:
        """At most ``beam_width`` hypotheses, the best first.

        The scores are the engine's. For a recording in parts they are sums over the parts with their context, so compare them
        only for the same recording under the same configuration.
        """
        if emissions.kept <= WHOLE_FRAMES:
            return self._search(emissions)
        hypotheses: list[Hypothesis] = [Hypothesis(())]
        for start, end in cut_at_pauses(emissions, self._vocabulary.blank_id):
            context_start, context_end = max(0, start - CONTEXT_FRAMES), min(emissions.kept, end + CONTEXT_FRAMES)
            first_frame = int(emissions.frame_index[start])
            next_frame = int(emissions.frame_index[end]) if end < emissions.kept else emissions.frames
            of_part = [
                replace(one, pieces=tuple(piece for piece in one.pieces if first_frame <= piece.start_frame < next_frame))
                for one in self._search(slice_frames(emissions, context_start, context_end))
            ]
            hypotheses = join_hypotheses(hypotheses, of_part, self._config.beam_width)
        return hypotheses

    def _search(self, emissions: Emissions) -> list[Hypothesis]:
        if emissions.kept == 0:
            return [Hypothesis(())]
        kept, skipped_logp = skip_repeated_blanks(emissions, self._vocabulary.blank_id, self._config.token_min_logp)
        log_probs = kept.dense()
        beams: list[_EngineBeam] = self._engine.decode_beams(log_probs, **self._limits())
        frame_index = kept.frame_index.tolist()
        known = _Known(lambda spoken: self._piece(spoken, log_probs, frame_index))
        plain = [_hypothesis((*beam[:3], beam[3] + skipped_logp, beam[4] + skipped_logp), known) for beam in beams]
        # ctc-beam-decoder gives no beam for blanks only.
        hypotheses = plain or [Hypothesis(())]
        if self._hotwords is not None:
            hypotheses = self._search_for_hotwords(hypotheses, emissions, emissions.dense())
        return [measure_posterior(hypotheses), *hypotheses[1:]]

    def _search_for_hotwords(
        self, plain: Sequence[Hypothesis], emissions: Emissions, log_probs: np.ndarray
    ) -> list[Hypothesis]:
        """The hypotheses with hotwords. If the check refused a hotword: the corrected hypothesis, then the plain ones."""
        assert self._hotwords is not None
        scorer, words = self._hotwords, self._vocabulary.lm_words()
        scorer.reset()

        def count_bonus(pieces: Sequence[Piece]) -> float:
            return scorer.final_score(" ".join(words[piece.token_id] for piece in pieces))

        beams: list[_EngineBeam] = self._biased_engine._decode_logits(
            log_probs, prune_history=False, hotword_scorer=scorer, **self._limits()
        )
        hypotheses = []
        frame_index = emissions.frame_index.tolist()
        known = _Known(lambda spoken: self._piece(spoken, log_probs, frame_index))
        for beam in beams:
            begun = scorer.score(" ".join(word for word, _ in beam[2]))
            hypothesis = _hypothesis((*beam[:4], beam[4] - begun), known)
            hypotheses.append(replace(hypothesis, hotword_score=count_bonus(hypothesis.pieces)))
        hypotheses.sort(key=lambda hypothesis: -hypothesis.total_score)
        best, *alternatives = hypotheses
        guard = float(self._config.hotword_guard)
        blank_id = self._vocabulary.blank_id
        pieces = drop_unsupported(best.pieces, plain[0].pieces, log_probs, emissions.frame_index, blank_id, guard, count_bonus)
        if _ids(pieces) != _ids(best.pieces):
            source = plain[0] if _ids(pieces) == _ids(plain[0].pieces) else best
            best = replace(source, pieces=pieces)
            alternatives = list(plain)
        best, *alternatives = (replace(one, hotword_score=count_bonus(one.pieces)) for one in (best, *alternatives))
        return [best, *(other for other in alternatives if _ids(other.pieces) != _ids(best.pieces))]

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
        """``word`` without special tokens: engines glue one such as ``</s>``, which starts no word, to the word before."""
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


def _hypothesis(beam: _EngineBeam, known: _Known) -> Hypothesis:
    _, _, words, acoustic_score, total_score = beam
    pieces = tuple(piece for piece in map(known.__getitem__, words) if piece is not None)
    return Hypothesis(pieces, float(acoustic_score), float(total_score - acoustic_score))


def name_search(config: Decoding) -> str:
    """The decoder's name for provenance, without opening it. Raises ConfigError for a missing engine."""
    packages = [_import_engine(config.engine)[0], *(["pyctcdecode"] if config.hotwords is not None else [])]
    return " + hotwords in ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def measure_posterior(hypotheses: Sequence[Hypothesis]) -> Hypothesis:
    """The first of ``hypotheses`` (the n-best of one search); each piece gets the share of them that has it at this time.

    Each hypothesis weighs by the softmax of its acoustic and language model score. This is the posterior of the list, as in
    confusion networks (Mangu et al. 2000).
    """
    best = hypotheses[0]
    # Without the bonus of hotwords: it is a preference and no evidence.
    scores = np.array([hypothesis.acoustic_score + hypothesis.lm_score for hypothesis in hypotheses])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    posterior = [1.0] * len(best.pieces)
    for hypothesis, share in zip(hypotheses[1:], shares[1:].tolist(), strict=True):
        there = {id(piece) for piece in hypothesis.pieces}  # hypotheses of one search share their piece objects
        missing = [index for index, piece in enumerate(best.pieces) if id(piece) not in there]
        tokens = {best.pieces[index].token_id for index in missing}
        places = {
            (p.token_id, frame)
            for p in hypothesis.pieces
            if p.token_id in tokens
            for frame in range(p.start_frame - _SLACK, p.end_frame + _SLACK)
        }
        for index in missing:
            if (best.pieces[index].token_id, best.pieces[index].start_frame) not in places:
                posterior[index] = max(0.0, posterior[index] - share)
    pieces = (
        piece if share == piece.posterior else replace(piece, posterior=share)
        for piece, share in zip(best.pieces, posterior, strict=True)
    )
    return replace(best, pieces=tuple(pieces))


def join_hypotheses(before: Sequence[Hypothesis], after: Sequence[Hypothesis], most: int) -> list[Hypothesis]:
    """The ``most`` best pairs of a hypothesis from ``before`` and one from ``after``.

    The pair of the two first ones stays first whatever its score, since a hypothesis keeps the score of a refused hotword.
    Of several pairs with the same pieces the first counts.
    """
    distinct: dict[tuple[int, ...], Hypothesis] = {}
    for one in after:
        distinct.setdefault(tuple(_ids(one.pieces)), one)
    best, *alternatives = product(before, distinct.values())
    alternatives = nlargest(most - 1, alternatives, key=lambda pair: pair[0].total_score + pair[1].total_score)
    return [
        Hypothesis(
            one.pieces + other.pieces,
            one.acoustic_score + other.acoustic_score,
            one.lm_score + other.lm_score,
            one.hotword_score + other.hotword_score,
        )
        for one, other in (best, *alternatives)
    ]


def _ids(pieces: Sequence[Piece]) -> list[int]:
    return [piece.token_id for piece in pieces]


def _check_lm(config: Decoding, path: str, vocabulary: Vocabulary) -> str:
    """Returns ``path`` if it is a whole KenLM model over this vocabulary's pieces, else raises ConfigError."""
    if not Path(path).is_file():
        raise ConfigError(f"decoding.lm = {path}: no such file (allowed: a KenLM file on this machine, or nothing)")
    check_lm_file(config, Path(path))
    options = kenlm.Config()
    options.show_progress, options.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    try:
        model = kenlm.Model(path, options)
    except (OSError, RuntimeError) as error:
        reason = "it is empty" if Path(path).stat().st_size == 0 else "it is damaged, or of another kind"
        raise ConfigError(
            f"decoding.lm = {path}: KenLM cannot read it: {reason} (allowed: an ARPA or KenLM binary file of order 6 at "
            "most; make one with `dictalake build-lm`)"
        ) from error
    words = vocabulary.lm_words().values()
    known = sum(word in model for word in words)
    if known < _LEAST_KNOWN_SHARE * len(words):
        raise ConfigError(
            f"decoding.lm = {path}: it knows {known} of the model's {len(words)} pieces, so it was made for another "
            "tokenizer; make one for this model with `dictalake build-lm`, or set decoding.lm to null"
        )
    return path


def _build(module: Any, lm: str | None, config: Decoding, vocabulary: Vocabulary) -> Any:
    labels = vocabulary.pyctcdecode_labels()
    known = list(vocabulary.lm_words().values()) if lm is not None and config.known_pieces else None
    build = module.build_ctcdecoder if module.__name__ == "pyctcdecode" else faster_decoder(module)
    with _quiet_loggers(), _without_suffix(lm) as path:
        return build(
            labels, kenlm_model_path=path, unigrams=known, alpha=float(config.lm_weight), beta=float(config.word_score)
        )


@contextmanager
def _without_suffix(lm: str | None) -> Iterator[str | None]:
    """``lm`` under a name that does not end in .arpa.

    From an ARPA the engines also read a word list and score by it, so one model would give different texts as ARPA and as
    binary. A gzip file is unpacked, as an engine's KenLM may lack zlib.
    """
    if lm is None or not lm.endswith((".arpa", ".gz")):
        yield lm
        return
    with tempfile.TemporaryDirectory(prefix="dictalake-lm-") as folder:
        path = Path(folder) / "lm"
        if lm.endswith(".gz"):
            with gzip.open(lm) as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        else:
            path.symlink_to(Path(lm).resolve())
        yield str(path)


def _import_engine(wanted: str) -> tuple[str, Any]:
    """Package name and module of the engine ``wanted``. ``auto`` is ctc-beam-decoder if it loads, else pyctcdecode."""
    if wanted in ("auto", "ctc-beam-decoder"):
        try:
            module = importlib.import_module("ctc_beam_decoder")
            if module.has_kenlm():
                return "ctc-beam-decoder", module
            problem = "it was built without KenLM"
        except (ImportError, OSError, RuntimeError) as error:
            problem = f"it does not load ({type(error).__name__})"
        if wanted == "ctc-beam-decoder":
            raise ConfigError(
                f"decoding.engine = ctc-beam-decoder: {problem}; its wheels are for x86-64 Linux with glibc 2.35 or later, "
                "macOS on ARM and Windows (allowed: auto, pyctcdecode, ctc-beam-decoder)"
            )
    with _quiet_loggers():
        return "pyctcdecode", importlib.import_module("pyctcdecode")


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
