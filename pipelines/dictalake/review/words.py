"""Texts and the times of their words: what the pages colour, light up and compare."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rapidfuzz.distance import Levenshtein

_TOKEN = re.compile(r"\S+|\s+")
_LETTERS = re.compile(r"[^\w]+")
_MARKUP = re.compile(r"\{[^{}]*\}")
_BANDS = (0.5, 0.7, 0.85)  # edges of the colours


@dataclass(frozen=True)
class Token:
    """A piece of a text. ``start_s`` and ``end_s`` are None where no word of the machine's stands for it; ``band`` 0–3 is its
    colour, None without a confidence."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    band: int | None = None

    @property
    def is_space(self) -> bool:
        return self.text.isspace()


@dataclass(frozen=True)
class Piece:
    """A run of words of a comparison."""

    kind: Literal["same", "gone", "new"]
    text: str


def make_key(word: str) -> str:
    """What two spellings of a word have in common: its letters and digits, in lower case. Empty for spoken punctuation."""
    return _LETTERS.sub("", _MARKUP.sub("", word)).lower()


def time_words(text: str, words: Sequence[Mapping[str, Any]]) -> list[Token]:
    """``text`` in tokens, each with the time and confidence of the machine's word that it was aligned with.

    A word that a person put in has no time; one that stands for another has that one's.
    """
    tokens = _TOKEN.findall(text)
    places = [(place, key) for place, token in enumerate(tokens) if (key := make_key(token))]
    timed = [(word, key) for word in words if (key := make_key(word["word"] or ""))]
    found: dict[int, Mapping[str, Any]] = {}
    for step in Levenshtein.opcodes([key for _, key in places], [key for _, key in timed]):
        if step.tag in ("equal", "replace"):
            pairs = zip(places[step.src_start : step.src_end], timed[step.dest_start : step.dest_end], strict=False)
            found |= {place: word for (place, _), (word, _) in pairs}
    made = []
    for place, token in enumerate(tokens):
        word = found.get(place)
        if word is None:
            made.append(Token(token))
        else:
            made.append(Token(token, round(word["start_s"], 3), round(word["end_s"], 3), find_band(word["confidence"])))
    return made


def find_band(confidence: float | None) -> int | None:
    """0 is the least sure."""
    return None if confidence is None else sum(confidence >= edge for edge in _BANDS)


def compare_texts(before: str, after: str) -> list[Piece]:
    """What two texts have in common and what not, by words as they are written."""
    old, new = before.split(), after.split()
    pieces: list[Piece] = []
    for step in Levenshtein.opcodes(old, new):
        gone, came = " ".join(old[step.src_start : step.src_end]), " ".join(new[step.dest_start : step.dest_end])
        if step.tag == "equal":
            pieces.append(Piece("same", gone))
            continue
        if gone:
            pieces.append(Piece("gone", gone))
        if came:
            pieces.append(Piece("new", came))
    return pieces


def make_reference(text: str, words: Sequence[Mapping[str, Any]]) -> str:
    """A corrected text as it was spoken, for scoring and training. Where the machine's words stand, their spelling and the
    spoken marks after them ({period}) stay; what a person changed is written as the machine writes."""
    tokens = [token for token in text.split() if make_key(token)]
    keys = [make_key(token) for token in tokens]
    spoken = [str(word["word"] or "") for word in words]
    timed = [place for place, word in enumerate(spoken) if make_key(word)]
    is_lower = all(word == word.lower() for word in spoken if not word.startswith("["))
    marks: dict[int, list[str]] = {}  # after a word of ``timed``, by its place there; -1: before all
    last = -1
    for word in spoken:
        if make_key(word):
            last += 1
        else:
            marks.setdefault(last, []).append(word)
    made: list[str] = list(marks.get(-1, ()))
    for step in Levenshtein.opcodes(keys, [make_key(spoken[place]) for place in timed]):
        if step.tag == "delete":
            made += [_spell(token, is_lower=is_lower) for token in tokens[step.src_start : step.src_end]]
        for offset in range(step.dest_end - step.dest_start):
            if step.tag == "equal":
                made.append(spoken[timed[step.dest_start + offset]])
            elif step.tag == "replace":
                made.append(_spell(tokens[step.src_start + offset], is_lower=is_lower))
            made += marks.get(step.dest_start + offset, ())
    return " ".join(made)


def _spell(token: str, *, is_lower: bool) -> str:
    bare = token.strip('.,;:!?"()')
    return bare.lower() if is_lower else bare
