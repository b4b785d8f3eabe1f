"""Builds the n-gram language model for beam search: text → the model's pieces → KenLM.

The model is over *pieces* in the form that beam search looks up (``Vocabulary.lm_words``). As in Google's recipe for MedASR,
``▁`` is written ``#``: "no fracture" is the line ``#no #fra cture``.
"""

from __future__ import annotations

import csv
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dictalake.decoding.vocabulary import Vocabulary
from dictalake.errors import ConfigError, RunError
from dictalake.training.kenlm_tools import KenlmTools

HIGHEST_ORDER = 6  # the kenlm package on PyPI is compiled for this
LEAST_SENTENCE_WORDS = 4
_TEXT_COLUMNS = ("text", "reference")
_SENTENCE_END = re.compile(r"(\{(?:period|question mark|exclamation point|new paragraph|next paragraph)\})")
_BATCH_LINES = 1000


@dataclass(frozen=True)
class LmPlan:
    """How to build. ``prune`` has a number for each order, the last one also for higher orders: n-grams seen at most this
    often are dropped.

    ``quantize`` stores probabilities and back-offs in 8 bits: a third of the size or less, with hardly any loss.
    """

    order: int = 6
    prune: tuple[int, ...] = ()
    quantize: bool = False
    memory: str = "1G"

    def __post_init__(self) -> None:
        if not 2 <= self.order <= HIGHEST_ORDER:
            raise ConfigError(f"--order {self.order}: must be from 2 to {HIGHEST_ORDER}, the most that the decoders can read")
        if self.prune and (self.prune[0] != 0 or list(self.prune) != sorted(self.prune) or len(self.prune) > self.order):
            raise ConfigError(
                f"--prune {' '.join(map(str, self.prune))}: must begin with 0, not fall, and hold at most {self.order} numbers "
                "(example: 0 0 1)"
            )


@dataclass(frozen=True)
class CorpusCounts:
    """What went into the corpus and what was kept out. In ``words``, markup such as ``{period}`` counts as one word."""

    dictations: int = 0
    pieces: int = 0
    excluded_dictations: int = 0
    excluded_sentences: int = 0
    unknown_pieces: int = 0
    words: int = 0


def read_dictations(path: Path, column: str | None = None) -> Iterator[str]:
    """Reads a dictation a line, or the column ``column`` (else ``text``, else ``reference``) of a ``.csv``; skips empty ones.

    Raises ConfigError for a file that is missing, not UTF-8, or without the column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from (text for text in (" ".join(t.split()) for t in _texts(file, path, column)) if text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected text, one dictation a line, or CSV") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; expected one dictation a line, or CSV") from None


def _texts(file: Iterable[str], path: Path, column: str | None) -> Iterator[str]:
    if path.suffix.lower() != ".csv":
        yield from file
        return
    rows = csv.DictReader(file)
    names = list(rows.fieldnames or [])
    wanted = next((name for name in ([column] if column else _TEXT_COLUMNS) if name in names), None)
    if wanted is None:
        raise ConfigError(
            f"{path}: has no column {column or ' or '.join(_TEXT_COLUMNS)}; its columns are {', '.join(names) or 'none'} "
            "(choose one with --column)"
        )
    for row in rows:
        yield row[wanted] or ""


class HeldOut:
    """Text that must not be in the corpus: whole dictations, and their sentences of four words or more.

    Texts are compared letter by letter in lower case, without markup and spaces.
    """

    def __init__(self, dictations: Iterable[str] = ()) -> None:
        self._dictations: set[str] = set()
        self._sentences: set[str] = set()
        for dictation in dictations:
            self._dictations.add(_plain(dictation))
            self._sentences.update(_plain(sentence) for sentence in _sentences(dictation))

    def cut(self, dictation: str) -> tuple[str, int]:
        """``dictation`` without its held-out sentences, and their number; "" if it is held out as a whole."""
        if _plain(dictation) in self._dictations:
            return "", 0
        parts = _sentences(dictation)
        kept = [part for part in parts if not self._is_held_out(_plain(part))]
        return " ".join(" ".join(kept).split()), len(parts) - len(kept)

    def _is_held_out(self, sentence: str) -> bool:
        # Everybody dictates shorter ones ("lungs are clear"): without them the model would not know its domain.
        return len(sentence.split()) >= LEAST_SENTENCE_WORDS and sentence in self._sentences


def unlike(dictations: Iterable[str], others: HeldOut) -> Iterator[str]:
    """The dictations that share no sentence with ``others``, such as a test text after tuning on another text."""
    for dictation in dictations:
        rest, shared = others.cut(dictation)
        if rest and not shared:
            yield dictation


def _sentences(dictation: str) -> list[str]:
    """The sentences of a dictation, each with the markup that ends it."""
    parts = _SENTENCE_END.split(dictation)
    return ["".join(pair) for pair in zip(parts[::2], [*parts[1::2], ""], strict=True) if "".join(pair).strip()]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text).lower().split())


def write_pieces(
    dictations: Iterable[str], tokenizer: Any, vocabulary: Vocabulary, held_out: HeldOut, out: Path, option: str = "--text"
) -> CorpusCounts:
    """Writes the corpus for ``lmplz`` to ``out``: a line of pieces for each dictation.

    ``tokenizer`` is the model's Hugging Face tokenizer. Raises a ConfigError that names ``option`` if nothing is left.
    """
    words = vocabulary.lm_words()
    written = pieces = cut_dictations = cut_sentences = unknown = spoken = 0
    with out.open("w", encoding="utf-8") as file:
        for batch in _batches(dictations, _BATCH_LINES):
            kept = []
            for dictation in batch:
                rest, sentences = held_out.cut(dictation)
                cut_sentences += sentences
                cut_dictations += not rest and not sentences
                if rest:
                    kept.append(rest)
            for text, ids in zip(kept, tokenizer(kept, add_special_tokens=False).input_ids if kept else [], strict=True):
                line = [words[i] for i in ids if i in words]
                unknown += len(ids) - len(line)
                pieces += len(line)
                written += bool(line)
                spoken += len(text.split()) if line else 0
                if line:
                    file.write(" ".join(line) + "\n")
    if not written:
        raise ConfigError(f"{option}: no dictation is left after held-out text is removed")
    return CorpusCounts(written, pieces, cut_dictations, cut_sentences, unknown, spoken)


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def estimate_arpa(corpus: Path, arpa: Path, plan: LmPlan, tools: KenlmTools) -> None:
    """``corpus`` (pieces, a dictation a line) → an ARPA file, by modified Kneser-Ney smoothing (Heafield et al. 2013).

    It uses ``--discount_fallback``, as small corpora lack the counts of counts that the discounts are estimated from. Raises
    RunError with the last lines of KenLM if it fails.
    """
    estimate = [str(tools.lmplz), "-o", str(plan.order), "-S", plan.memory, "-T", str(arpa.parent), "--discount_fallback"]
    if plan.prune:
        estimate += ["--prune", *map(str, plan.prune)]
    _run([*estimate, "--text", str(corpus), "--arpa", str(arpa)])


def write_binary(arpa: Path, out: Path, plan: LmPlan, tools: KenlmTools) -> None:
    """ARPA → a KenLM binary trie at ``out``. The file appears whole or not at all. Raises RunError if KenLM fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".build-lm-") as folder:
        binary = Path(folder) / "lm.kenlm"
        quantized = ["-q", "8", "-b", "8", "-a", "22"] if plan.quantize else []
        _run([str(tools.build_binary), "-T", folder, *quantized, "trie", str(arpa), str(binary)])
        binary.replace(out)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip() and not set(line) <= set("-0123456789*=>")][-2:]
        raise RunError(f"{Path(command[0]).name} failed with status {done.returncode}: {' '.join(last)}")
