"""Writes synthetic clinical dictations: random combinations of hand-written templates, lexicons and free-form sentences.

The text is in spoken form with MedASR's markup: ``[FINDINGS] {colon} no acute fracture {period}``. Words are lower case,
except letters that are spoken one by one (``CT``). There are no digits: ``two point one centimeters``.

A hash of its words assigns each *sentence* to training or to the held-out set. So a held-out dictation shares no sentence
with a training dictation or with the language model's corpus.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"

HELD_OUT_SHARE = 1 / 20
_SLOT = re.compile(r"<([^<>]+)>")
_CHOICE = re.compile(r"\(([^()]*)\)")
_MARKUP = re.compile(r"\{[a-z ]+\}|\[[A-Z ]+\]")
_MAX_DEPTH = 12


@dataclass(frozen=True)
class Dictation:
    """One piece of dictation: its ``text`` in spoken form with markup, and the ``sentences`` that it consists of."""

    id: str
    specialty: str
    text: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Template:
    specialty: str
    heading: str
    pattern: str


@dataclass(frozen=True)
class Corpus:
    """The source material: ``templates``, ``lexicon`` (slot name → entries) and free-form ``reports`` by specialty."""

    templates: tuple[Template, ...]
    lexicon: dict[str, tuple[str, ...]]
    reports: dict[str, tuple[str, ...]]
    words: tuple[str, ...] = field(default=())

    @classmethod
    def load(cls, folder: Path = CORPUS, wordlists: tuple[Path, ...] = ()) -> Corpus:
        """Reads ``templates/*.txt``, ``lexicon/*.txt`` and ``reports/*.txt``; ``wordlists`` add words for word lists."""
        lexicon = {path.stem.replace("_", " "): _lines(path) for path in sorted((folder / "lexicon").glob("*.txt"))}
        templates = []
        for path in sorted((folder / "templates").glob("*.txt")):
            heading = "FINDINGS"
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("#"):
                    heading = line.split(":", 1)[1].strip() if ":" in line else heading
                elif line.strip():
                    templates.append(Template(path.stem, heading, " ".join(line.split())))
        reports: dict[str, tuple[str, ...]] = {}
        for path in sorted((folder / "reports").glob("*.txt")):
            specialty = path.stem.split("_", 1)[0]
            reports[specialty] = reports.get(specialty, ()) + _lines(path)
        words = tuple(sorted({word for path in wordlists for word in _plain_words(path)}))
        return cls(tuple(templates), lexicon, reports, words)

    def expand(self, pattern: str, rng: random.Random) -> str:
        """One sentence of ``pattern``: ``<slot>`` becomes a lexicon entry, ``(a|b|)`` one of its alternatives."""
        text = pattern
        for _ in range(_MAX_DEPTH * 20):
            if choice := _CHOICE.search(text):
                picked = rng.choice(choice.group(1).split("|"))
                text = text[: choice.start()] + picked + text[choice.end() :]
            elif slot := _SLOT.search(text):
                name = slot.group(1).replace("_", " ")
                if name not in self.lexicon:
                    raise KeyError(f"template names the slot <{name}>, but lexicon/{name.replace(' ', '_')}.txt is missing")
                text = text[: slot.start()] + rng.choice(self.lexicon[name]) + text[slot.end() :]
            else:
                return " ".join(text.split())
        raise RecursionError(f"lexicon entries refer to each other without end in the template: {pattern}")

    @cached_property
    def by_heading(self) -> dict[tuple[str, str], list[Template]]:
        """Templates by ``(specialty, heading)``."""
        groups: dict[tuple[str, str], list[Template]] = {}
        for template in self.templates:
            groups.setdefault((template.specialty, template.heading), []).append(template)
        return groups

    @cached_property
    def free_words(self) -> tuple[str, ...]:
        """Every word of the corpus and of the word lists, for lists of unconnected words."""
        own = {
            word
            for text in [*(e for entries in self.lexicon.values() for e in entries), *sum(self.reports.values(), ())]
            for word in _MARKUP.sub(" ", re.sub(r"<[^<>]*>|[()|]", " ", text)).split()
        }
        return tuple(sorted(own))


def is_held_out(sentence: str) -> bool:
    """True for the share of sentences that training and the language model never see; only their words decide.

    A text of several sentences is never held out: each of them occurs in training among others.
    """
    if "{period}" in sentence:
        return False
    key = " ".join(_MARKUP.sub(" ", sentence).lower().split())
    value = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
    return value < HELD_OUT_SHARE * 2**64


def write_dictations(
    corpus: Corpus,
    seed: int,
    count: int,
    *,
    held_out: bool,
    free_words: float = 0.0,
    list_words: tuple[int, int] = (3, 9),
    specialties: Sequence[str] | None = None,
) -> Iterator[Dictation]:
    """Yields ``count`` dictations of one to four sentences of ``specialties`` (default all), all held out or none.

    ``free_words`` is the share of training utterances that are lists of ``list_words`` unconnected words. They teach spelling
    from sound; in sentences the model could guess. A model from random weights starts with lists of one to three words.
    """
    rng = random.Random(seed)
    prefix = "held" if held_out else "train"
    free_form = {
        specialty: [s for s in sentences if is_held_out(s) is held_out] for specialty, sentences in corpus.reports.items()
    }
    names = sorted(specialties or free_form)
    for index in range(count):
        specialty = rng.choice(names)
        if free_words and rng.random() < free_words:
            sentences: tuple[str, ...] = (_list_words(corpus, rng, list_words),)
            text = sentences[0]
        else:
            heading, sentences = _choose_sentences(corpus, specialty, free_form[specialty], rng, held_out)
            text = _compose(heading, sentences, rng)
        yield Dictation(f"{prefix}-{seed:03d}-{index:06d}", specialty, text, sentences)


def _choose_sentences(
    corpus: Corpus, specialty: str, free_form: list[str], rng: random.Random, held_out: bool
) -> tuple[str, tuple[str, ...]]:
    heading = rng.choice([h for s, h in corpus.by_heading if s == specialty])
    wanted = rng.choices([1, 2, 3, 4], weights=[50, 30, 14, 6])[0]
    sentences: list[str] = []
    while len(sentences) < wanted:
        if free_form and rng.random() < 0.45:
            sentence = rng.choice(free_form)
        else:
            sentence = corpus.expand(rng.choice(corpus.by_heading[specialty, heading]).pattern, rng)
            if is_held_out(sentence) is not held_out:
                continue
        sentences.append(sentence)
    return heading, tuple(sentences)


def _compose(heading: str, sentences: tuple[str, ...], rng: random.Random) -> str:
    """Joins sentences as doctors do: with or without spoken punctuation, a heading or a new paragraph."""
    punctuated = rng.random() < 0.65
    parts: list[str] = []
    if rng.random() < 0.25:
        parts.append(f"[{heading}]" + (" {colon}" if rng.random() < 0.6 else ""))
    for number, sentence in enumerate(sentences):
        if not punctuated:
            sentence = sentence.replace("{comma} ", "")
        last = number == len(sentences) - 1
        parts.append(sentence + (" {period}" if punctuated else ""))
        if punctuated and rng.random() < (0.06 if last else 0.14):
            parts.append(rng.choice(["{new paragraph}", "{new paragraph}", "{new line}"]))
    return " ".join(parts)


def _list_words(corpus: Corpus, rng: random.Random, length: tuple[int, int]) -> str:
    pools = [corpus.free_words, corpus.words or corpus.free_words]
    return " ".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(*length)))


def _lines(path: Path) -> tuple[str, ...]:
    lines = (" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _plain_words(path: Path) -> Iterator[str]:
    """Lower-case words of a word list (hunspell's ``word/FLAGS`` lines too)."""
    for line in path.read_text(encoding="utf-8", errors="ignore").splitlines():
        word = line.split("/")[0].strip()
        if re.fullmatch(r"[a-z]{3,16}", word):
            yield word
