"""Finds what the model quoted in the text that it read. What does not stand there is not taken.

A quote may differ from the text in letter case, in white space and in the shape of quotation marks and dashes, since models
change these when they copy. Nothing else may differ, and it must begin and end with a whole word. What is stored is the
passage as it stands in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dictalake.transcript.inverse_text_normalization import write_numbers
from dictalake.transcript.number_words import read_number

_SHAPES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‑": "-", "\u00a0": " ", "…": "."})
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Span:
    """Characters ``start`` … ``end`` of a text."""

    start: int
    end: int

    def meets(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end


def find_quote(quote: str, text: str) -> list[Span]:
    """Every place at which ``quote`` stands in ``text``; none for a quote without a letter or digit."""
    words = quote.translate(_SHAPES).split()
    if not any(character.isalnum() for character in quote):
        return []
    pattern = r"\s+".join(re.escape(word) for word in words)
    # A quote may not begin or end inside a word or a number: "no" is not in "node", nor "4" in "4.5".
    before = r"(?<!\w)(?<!\d[.,])" if words[0][0].isalnum() else ""
    after = r"(?!\w)(?![.,]\d)" if words[-1][-1].isalnum() else ""
    found = re.finditer(f"{before}{pattern}{after}", text.translate(_SHAPES), re.IGNORECASE)
    return [Span(match.start(), match.end()) for match in found]


def says_number(number: float, passage: str) -> bool:
    """Whether ``passage`` says ``number``, in digits or in words."""
    return any(abs(number - said) <= 1e-9 * max(1.0, abs(said)) for said in list_numbers(passage))


def list_numbers(passage: str) -> list[float]:
    """The numbers of a passage. A comma may group digits or, as in 4,2, stand for the point: both count."""
    words = [word.strip(".,;:()") for word in passage.lower().replace("-", " ").split()]
    spoken = [number.written for index in range(len(words)) if (number := read_number(words, index))]
    return [number for text in (passage, *write_numbers(words), *spoken) for number in _read_digits(text)]


def _read_digits(text: str) -> list[float]:
    numbers = []
    for found in _NUMBER.findall(text):
        for plain in {found.replace(",", ""), found.replace(",", ".")}:
            pieces = [plain] if plain.count(".") < 2 else plain.split(".")  # 1.2.2026
            numbers += [float(piece) for piece in pieces]
    return numbers
