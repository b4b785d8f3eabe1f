"""Writes a CSV of texts as a service that nobody can run here would have made them, for `dictalake evaluate --hypotheses`.

    python -m tests.service_texts MANIFEST.csv OUT.csv

It is no recogniser. The reference texts are taken and spoilt by rules that are drawn by chance, always the same ones: words
fall out, words are replaced by what sounds like them, numbers and sides change now and then, and a few recordings have no
text. As services do, it writes readable texts: digits for some numbers, and punctuation instead of spoken marks.
"""

from __future__ import annotations

import csv
import random
import re
import sys
from pathlib import Path

from dictalake.transcript.formatting import format_text

_DROPPED, _REPLACED, _WITHOUT_TEXT = 0.02, 0.04, 0.03  # shares of the words, and of the recordings
_SOUNDS_LIKE = {
    "the": "a",
    "is": "as",
    "and": "in",
    "left": "right",
    "no": "now",
    "fifteen": "fifty",
    "ilium": "ileum",
    "hypotension": "hypertension",
    "abduction": "adduction",
    "perineal": "peroneal",
}
_WORD = re.compile(r"[A-Za-z]+")


def main() -> int:
    manifest, out = Path(sys.argv[1]), Path(sys.argv[2])
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("uri", "text"))
        writer.writerows(spoil_all([(row["uri"], row["reference"]) for row in rows]))
    return 0


def spoil_all(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same for the same texts. Every thirty-third recording or so is left out."""
    chance = random.Random(1)
    return [(uri, spoil(format_text(text).text, chance)) for uri, text in said if chance.random() >= _WITHOUT_TEXT]


def spoil(text: str, chance: random.Random) -> str:
    """A text with some words dropped or replaced."""

    def hear(match: re.Match[str]) -> str:
        word, draw = match[0], chance.random()
        if draw < _DROPPED:
            return ""
        if word.lower() in _SOUNDS_LIKE and draw < 0.15:
            return _SOUNDS_LIKE[word.lower()]
        return word[:-1] if draw < _DROPPED + _REPLACED and len(word) > 4 else word

    return " ".join(_WORD.sub(hear, text).split())


if __name__ == "__main__":
    sys.exit(main())
