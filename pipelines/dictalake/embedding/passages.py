"""Cuts a transcript into passages: whole sentences of one section, as many as an encoder reads at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SENTENCE = re.compile(r"\S.*?(?:[.?!]+(?=\s|$)|\n|$)", re.DOTALL)
_WORD = re.compile(r"\S+")
Span = tuple[int, int]


@dataclass(frozen=True)
class Passage:
    """``section`` counts from 1, 0 is the whole text of a transcript without sections; ``start`` and ``end`` are characters in
    its text."""

    section: int
    start: int
    end: int
    text: str


def cut_transcript(
    text: str, sections: Sequence[Mapping[str, Any]] | None, count_tokens: Callable[[str], int], most: int
) -> Iterator[Passage]:
    """The passages of a transcript, each of at most ``most`` tokens; a single word may have more."""
    parts = [(place, section["text"] or "") for place, section in enumerate(sections or (), 1)] or [(0, text)]
    for place, part in parts:
        for start, end in cut(part, count_tokens, most):
            yield Passage(place, start, end, part[start:end])


def cut(text: str, count_tokens: Callable[[str], int], most: int) -> Iterator[Span]:
    """Runs of sentences. A sentence that is too long alone is cut between words, in halves until each part fits."""
    run: Span | None = None
    for match in _SENTENCE.finditer(text):
        sentence = (match.start(), match.end())
        longer = (run[0], sentence[1]) if run else sentence
        if count_tokens(text[slice(*longer)]) <= most:
            run = longer
            continue
        if run:
            yield _strip(text, run)
        run = None
        if count_tokens(text[slice(*sentence)]) <= most:
            run = sentence
        else:
            yield from _halve(text, sentence, count_tokens, most)
    if run:
        yield _strip(text, run)


def _halve(text: str, span: Span, count_tokens: Callable[[str], int], most: int) -> Iterator[Span]:
    words = list(_WORD.finditer(text, *span))
    if len(words) < 2 or count_tokens(text[slice(*span)]) <= most:
        yield _strip(text, span)
        return
    middle = words[len(words) // 2].start()
    yield from _halve(text, (span[0], middle), count_tokens, most)
    yield from _halve(text, (middle, span[1]), count_tokens, most)


def _strip(text: str, span: Span) -> Span:
    end = span[0] + len(text[slice(*span)].rstrip())
    return span[0], end
