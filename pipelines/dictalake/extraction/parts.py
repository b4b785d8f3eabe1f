"""Cuts a long text into parts that overlap, at the ends of sentences, so that each sentence is whole in one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

OVERLAP_CHARS = 400
_END = re.compile(r"\n\s*\n|(?<=[.!?;])\s+|\n")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Part:
    """What the model reads at once: ``text`` is the whole text from ``start``. An item is the part's own if its quote begins
    from ``own_from`` on and before ``own_to``; the rest overlaps with neighbours.
    """

    start: int
    text: str
    own_from: int
    own_to: int

    def owns(self, place: int) -> bool:
        return self.own_from <= place < self.own_to


def split_text(text: str, most_chars: int) -> list[Part]:
    """The parts of ``text``, each of at most ``most_chars`` characters. An empty text has none."""
    if not text.strip():
        return []
    if len(text) <= most_chars:
        return [Part(0, text, 0, len(text))]
    overlap = min(OVERLAP_CHARS, most_chars // 4)
    seams = [0]
    while len(text) - seams[-1] > most_chars - overlap:
        seams.append(_find_seam(text, seams[-1] + most_chars // 2, seams[-1] + most_chars - 2 * overlap))
    seams.append(len(text))
    parts = []
    for own_from, own_to in pairwise(seams):
        start = 0 if own_from == 0 else _find_seam(text, own_from - overlap, own_from)
        end = min(len(text), own_to + overlap)
        parts.append(Part(start, text[start:end], own_from, own_to))
    return parts


def _find_seam(text: str, least: int, most: int) -> int:
    """The last place of ``least`` … ``most`` where a sentence begins; without one a word; without one ``most``."""
    for pattern in (_END, _SPACE):
        ends = [match.end() for match in pattern.finditer(text, least, most)]
        if ends:
            return ends[-1]
    return most
