"""Hotwords: local names, drugs and devices that the beam search favours (shallow fusion, like the language model).

The bonus is for letters, not for pieces. A beam that starts to spell a hotword at the beginning of a word gets
``hotword_weight`` for each letter. It loses all of it when it leaves the term (the failure arcs of contextual biasing, He et
al. 2019, arXiv 1811.06621). So it does not matter how a model cuts a term into pieces, a term may have several words, and a
term is favoured from its first piece on, before the search has dropped it.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dictalake import logs
from dictalake.config.locations import resolve
from dictalake.config.sections import Decoding
from dictalake.decoding.spoken_numbers import spell_numbers
from dictalake.decoding.vocabulary import WORD_START, Vocabulary
from dictalake.errors import ConfigError

MOST_HOTWORDS = 50_000
HEAVIEST = 10.0
_LEAST_LETTERS = 2
_SHOWN_LINES = 10


@dataclass(frozen=True)
class Hotword:
    """A term as it should be written, and the weight of its letters relative to other terms."""

    term: str
    weight: float = 1.0


@dataclass(frozen=True)
class HotwordList:
    """The terms of a file, each once, and those that are left out because the model cannot write them, with their lines."""

    hotwords: tuple[Hotword, ...]
    left_out: tuple[tuple[int, str], ...] = ()

    def explain_left_out(self) -> str | None:
        """A sentence about all that is left out; None where nothing is."""
        if not self.left_out:
            return None
        # Never the terms: one may be the name of a patient.
        shown = [f"{number}" for number, _ in self.left_out[:_SHOWN_LINES]]
        more = len(self.left_out) - len(shown)
        count, total = len(self.left_out), len(self.left_out) + len(self.hotwords)
        return (
            f"decoding.hotwords: {count} of {total} terms {'is' if count == 1 else 'are'} left out, as the model has no pieces "
            f"for some of their letters or they have fewer than {_LEAST_LETTERS} (line {', '.join(shown)}"
            f"{f' and {more} more' if more else ''}); write them as they are spoken"
        )


def warn_of_hotwords(config: Decoding, vocabulary: Vocabulary, show: logs.Show | None = None) -> None:
    """Tells the person who started the command which terms are left out: workers, which read the same list, do not."""
    hotwords = read_list(config, vocabulary)
    if hotwords is not None and (warning := hotwords.explain_left_out()) is not None:
        logs.log_event("hotwords", warning, show, level=logs.WARNING)


def read_list(config: Decoding, vocabulary: Vocabulary) -> HotwordList | None:
    """The list that the search uses; None without one. Raises ConfigError as ``read_hotwords``."""
    if config.kind != "beam" or config.hotwords is None:
        return None
    return read_hotwords(Path(resolve(config.hotwords)), vocabulary)


def read_hotwords(path: Path, vocabulary: Vocabulary) -> HotwordList:
    """A text file with a term a line, and behind a tab, where wanted, its weight (default 1). ``#`` begins a comment line.

    A term that the model's pieces cannot spell is tried as it is spoken, with its digits as words; if they cannot spell that
    either, or it is too short, it is left out. Of a term that stands there again, in whatever case and spacing, the heavier
    weight counts. Raises ConfigError where no term is left, and for a weight that is no number from 0 to 10.
    """
    letters = {letter for i, piece in enumerate(vocabulary.pieces) if i not in vocabulary.special_ids for letter in fold(piece)}
    found: dict[str, Hotword] = {}
    left_out: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text, _, weight_text = line.partition("\t")
        weight = _parse_weight(weight_text, f"decoding.hotwords, line {number}")
        if not text.strip():
            continue
        term = _make_writable(text, letters)
        if term is None:
            left_out.setdefault(fold(" ".join(text.split())), (number, " ".join(text.split())))
            continue
        known = found.get(fold(term))
        if known is None or known.weight < weight:
            found[fold(term)] = Hotword(term if known is None else known.term, weight)
    if not found:
        what = "no term that the model can spell" if left_out else "no term"
        raise ConfigError(f"decoding.hotwords = {path}: holds {what}; expected one a line, or decoding.hotwords: null")
    if len(found) > MOST_HOTWORDS:
        raise ConfigError(f"decoding.hotwords = {path}: {len(found)} terms, at most {MOST_HOTWORDS} are allowed")
    return HotwordList(tuple(found.values()), tuple(left_out.values()))


def _read_lines(path: Path) -> list[str]:
    """The lines of UTF-8, or of what Windows calls Unicode: UTF-16 with its mark."""
    try:
        data = path.read_bytes()
        encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return data.decode(encoding).splitlines()
    except OSError as error:
        raise ConfigError(f"decoding.hotwords = {path}: cannot be read ({error.strerror}); expected one term a line") from None
    except UnicodeDecodeError:
        raise ConfigError(f"decoding.hotwords = {path}: is not UTF-8 text; save it as UTF-8, with one term a line") from None


def write_terms(path: Path) -> str:
    """The terms of a file in a form that is the same whatever their order, spacing, ends of lines and comments.

    Raises ConfigError as ``read_hotwords``.
    """
    terms = set()
    for number, line in enumerate(_read_lines(path), start=1):
        text, _, weight_text = line.partition("\t")
        if text.strip() and not text.lstrip().startswith("#"):
            weight = _parse_weight(weight_text, f"decoding.hotwords, line {number}")
            terms.add(" ".join(text.split()) + ("" if weight == 1 else f"\t{weight:g}"))
    return "".join(f"{term}\n" for term in sorted(terms))


def _make_writable(text: str, letters: set[str]) -> str | None:
    """The first form of a term that consists of ``letters``: as it stands, in plain signs, with its digits as words."""
    plain = unicodedata.normalize("NFKC", text).replace("’", "'")
    for form in (text, plain, spell_numbers(plain)):
        term = " ".join(form.split())
        signs = fold(term.replace(" ", ""))
        if letters.issuperset(signs):
            return term if len(signs) >= _LEAST_LETTERS else None
    return None


def _parse_weight(text: str, where: str) -> float:
    try:
        weight = float(text.strip().replace(",", ".") or 1)  # a comma, as spreadsheets write in much of the world
    except ValueError:
        weight = -1.0
    if not 0 < weight <= HEAVIEST:
        raise ConfigError(f"{where}: the weight after the tab must be a number above 0 and at most {HEAVIEST:g}")
    return weight


def fold(text: str) -> str:
    """Lower case, letter by letter, so that the length does not change."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)


def find_hotwords(hotwords: Iterable[Hotword], text: str) -> list[str]:
    """The terms of ``hotwords`` in ``text`` as whole words, once for each occurrence; of two that overlap, the longer."""
    terms = sorted((fold(hotword.term) for hotword in hotwords), key=len, reverse=True)
    if not terms:
        return []
    return re.findall(r"(?<![^\W_])(?:" + "|".join(map(re.escape, terms)) + r")(?![^\W_])", fold(" ".join(text.split())))


@dataclass(slots=True)
class _Node:
    """A node in the trie of terms. ``bonus`` is the value of the letters so far; ``ends`` says whether a term ends here."""

    bonus: float = 0.0
    ends: bool = False
    next: dict[str, _Node] = field(default_factory=dict)


# Terms that are being spelt, each with the best score before it
Threads = tuple[tuple[_Node, float], ...]
_State = tuple[float, Threads]  # the best score of finished terms, and those that are being spelt


class HotwordScorer:
    """Computes the bonus of a beam's text. pyctcdecode's search takes it in place of its own hotword scorer."""

    def __init__(self, hotwords: Sequence[Hotword], weight: float, vocabulary: Vocabulary) -> None:
        """``weight`` is in nats for each letter. ``vocabulary`` says what the search's "words" stand for."""
        self._root = _Node()
        # Lightest first: where terms share a beginning, the heavier one's weight counts, whatever the order in the file.
        for hotword in sorted(hotwords, key=lambda one: one.weight):
            self._add(fold(hotword.term), weight * hotword.weight)
        special = (vocabulary.pyctcdecode_labels()[i] for i in vocabulary.special_ids)
        self._letters = {word: fold(vocabulary.pieces[i]) for i, word in vocabulary.lm_words().items()}
        self._silent = frozenset(word for word in special if word)
        # A recording begins with a word start, even in a vocabulary of letters, which writes no gap before it.
        begun = self._root.next.get(WORD_START)
        self.start: Threads = ((begun, 0.0),) if begun else ()
        self._states: dict[str, _State] = {}
        self.reset()

    def reset(self) -> None:
        """Forgets the texts of the previous recording."""
        self._states = {"": (0.0, self.start)}

    def _add(self, term: str, weight: float) -> None:
        node = self._root
        for letter in WORD_START + term.replace(" ", WORD_START):
            bonus = node.bonus + (weight if letter != WORD_START else 0.0)
            node = node.next.setdefault(letter, _Node())
            node.bonus = bonus
        node.ends = True

    def score(self, text: str) -> float:
        """Nats for a beam's text: pyctcdecode's pieces with spaces between them. An unfinished term counts too."""
        best, threads = self._state(text)
        return max([best, *(before + node.bonus for node, before in threads)])

    def final_score(self, text: str) -> float:
        """The same at the end of a recording, where an unfinished term no longer counts."""
        best, threads = self._state(text)
        return max([best, *(before + node.bonus for node, before in threads if node.ends)])

    def score_partial_token(self, token: str) -> float:
        """Zero: only complete pieces count."""
        return 0.0

    def __contains__(self, token: str) -> bool:
        return False

    def _state(self, text: str) -> _State:
        # No recursion: the text may be long, and none of its beginnings known.
        missing = []
        while text not in self._states:
            missing.append(text)
            text = text.rpartition(" ")[0]
        state = self._states[text]
        for longer in reversed(missing):
            state = self.advance(state, longer.rpartition(" ")[2])
            self._states[longer] = state
        return state

    def advance(self, state: _State, word: str) -> _State:
        """The state behind ``word``, a "word" of the search."""
        best, threads = state
        for letter in self._spell(word):
            if letter == WORD_START:
                best = max([best, *(before + node.bonus for node, before in threads if node.ends)])
                threads = (*threads, (self._root, best))
            threads = tuple((node.next[letter], before) for node, before in threads if letter in node.next)
        return best, threads

    def _spell(self, word: str) -> str:
        """The letters of a "word" of the search; a special token glued to its end adds none."""
        while word not in self._letters:
            suffix = next((special for special in self._silent if word.endswith(special)), None)
            if suffix is None:
                return ""
            word = word.removesuffix(suffix)
        return self._letters[word]
